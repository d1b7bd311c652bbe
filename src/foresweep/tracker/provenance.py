"""What a run came from: code, command, packages, machine; secrets taken out before storing."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from foresweep.tracker.session import cpu_model, gpu_models, memory_mb

# Secrets, taken out of every text before it is stored.
#
# By telling names and known forms of our own, then by the detectors of detect-secrets.


HIDDEN = "***"
LIMIT_BITS = 4.6
"""Entropy per character above which a quoted base64 text counts as random; hex has at most 4."""
SHORTEST = 8
"""A detector's find of fewer characters is a word, not a secret."""

_WORD = (
    r"[\w.-]*(?:password|passwd|passphrase|secret|token|credentials?|private[_-]?key"
    r"|(?:api|access|auth|secret)[_-]?key)(?![\w-])"
)
_NAMED = re.compile(
    rf"(?P<keep>\b{_WORD}[\"']?\s*[=:]\s*|--?{_WORD}\s+)"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'&,;]+)",
    re.IGNORECASE,
)
_FLAG = re.compile(rf"--?{_WORD}", re.IGNORECASE)
_IN_URL = re.compile(r"(?P<keep>\b[a-z][\w+.-]*://[^\s/:@]*:)\S+(?=@)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_DOT_ENV = re.compile(r"diff --git a/\S*\.env\b.*?(?=^diff --git |\Z)", re.DOTALL | re.MULTILINE)


def redact(text: str) -> str:
    """`text` without passwords, tokens and keys.

    First our own forms (URLs, what follows telling names, keys in blocks, `.env` diffs), then
    what the detectors of detect-secrets (Yelp) find in what is left.
    """
    text = _DOT_ENV.sub(f"diff of a .env file: {HIDDEN}\n", text)
    text = _KEY_BLOCK.sub(HIDDEN, text)
    text = _IN_URL.sub(rf"\g<keep>{HIDDEN}", text)
    text = _BEARER.sub(rf"\g<keep>{HIDDEN}", text)
    text = _NAMED.sub(rf"\g<keep>{HIDDEN}", text)
    return _without_detected(_KNOWN.sub(HIDDEN, text))


def redact_command(words: Sequence[str]) -> str:
    """A command line in one text; what follows a telling flag is hidden whatever it looks like."""
    shown, hide = [], False
    for word in words:
        shown.append(HIDDEN if hide else redact(word))
        hide = _FLAG.fullmatch(word) is not None
    return " ".join(shown)


def redact_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, those with telling names hidden whole."""
    telling = re.compile(_WORD, re.IGNORECASE)
    return {
        name: HIDDEN if telling.search(name) else redact(value) for name, value in variables.items()
    }


def storable(text: str) -> str:
    """`text` without secrets and without what a database cannot hold: NUL characters and halves
    of surrogate pairs become `\\x00` and `?`."""
    sound = text.replace("\0", "\\x00").encode("utf-8", "replace").decode()
    return redact(sound)


def _without_detected(text: str) -> str:
    detectors = _detectors()
    return "\n".join(_clean_line(line, detectors) for line in text.split("\n"))


def _clean_line(line: str, detectors: Sequence[Any]) -> str:
    if len(line) < SHORTEST or line.isspace():
        return line
    secrets = {
        secret
        for detector in detectors
        for secret in detector.analyze_string(line)
        if len(secret) >= SHORTEST and HIDDEN not in secret and _is_random(detector, secret)
    }
    for secret in sorted(secrets, key=len, reverse=True):
        line = line.replace(secret, HIDDEN)
    return line


def _is_random(detector: Any, secret: str) -> bool:
    """A detector by entropy finds every quoted word and leaves the limit to its caller."""
    measure = getattr(detector, "calculate_shannon_entropy", None)
    return measure is None or measure(secret) > LIMIT_BITS


@cache
def _detectors() -> tuple[Any, ...]:
    """Those that know a form, and the entropy of quoted base64; hex entropy would hide commit
    and content hashes, the very things that provenance is kept for."""
    from detect_secrets.plugins import (
        artifactory,
        aws,
        azure_storage_key,
        cloudant,
        discord,
        github_token,
        gitlab_token,
        high_entropy_strings,
        jwt,
        mailchimp,
        npm,
        openai,
        private_key,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    return (
        artifactory.ArtifactoryDetector(),
        aws.AWSKeyDetector(),
        azure_storage_key.AzureStorageKeyDetector(),
        cloudant.CloudantDetector(),
        discord.DiscordBotTokenDetector(),
        github_token.GitHubTokenDetector(),
        gitlab_token.GitLabTokenDetector(),
        jwt.JwtTokenDetector(),
        mailchimp.MailchimpDetector(),
        npm.NpmDetector(),
        openai.OpenAIDetector(),
        private_key.PrivateKeyDetector(),
        pypi_token.PypiTokenDetector(),
        sendgrid.SendGridDetector(),
        slack.SlackDetector(),
        square_oauth.SquareOAuthDetector(),
        stripe.StripeDetector(),
        telegram_token.TelegramBotTokenDetector(),
        twilio.TwilioKeyDetector(),
        high_entropy_strings.Base64HighEntropyString(limit=LIMIT_BITS),
    )


# What a run came from: code, command, packages, machine; secrets taken out before storing.


MAX_DIFF_CHARS = 65_536
MOST_READ = 1_000_000
"""Characters of a diff that are searched for secrets; what lies beyond is never stored."""
GIT_TIMEOUT_S = 2.0
PACKAGES = (
    *("foresweep", "numpy", "pandas", "polars", "torch", "transformers", "peft", "safetensors"),
    *("timecopilot-toto", "kronos-finance", "chronos-forecasting", "sqlalchemy"),
)
_TELLING = re.compile(
    r"(FORESWEEP|CUDA|NVIDIA|TORCH|PYTORCH|OMP|MKL|OPENBLAS|HF|POLARS|RAY|WANDB|MLFLOW)_"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a process ran. Equal ones are stored once."""

    git_commit: str | None  # short hash
    git_dirty: bool | None
    git_diff: str | None  # of tracked files, redacted, at most MAX_DIFF_CHARS
    command: str
    folder: str
    python: str
    packages: dict[str, str]
    host: str
    platform: str
    cpu_count: int
    cpu_model: str
    gpu_models: list[str]
    memory_mb: int
    variables: dict[str, str]  # of the environment, those that change a run, redacted

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def environment_id(self) -> str:
        """sha256 of the content."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def this_environment(folder: Path | None = None) -> Environment:
    """What can be known of this process; what cannot (no git, say) is None."""
    commit = _git("rev-parse", "--short", "HEAD", folder=folder)
    diff = _git("diff", "HEAD", "--no-ext-diff", folder=folder) if commit else None
    return Environment(
        git_commit=commit,
        git_dirty=None if diff is None else bool(diff),
        git_diff=clipped(redact(clipped(diff, MOST_READ))) if diff else None,
        command=redact_command(sys.argv),
        folder=redact(str(folder or Path.cwd())),
        python=platform.python_version(),
        packages=_packages(),
        host=platform.node(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 1,
        cpu_model=cpu_model(),
        gpu_models=gpu_models(),
        memory_mb=memory_mb(),
        variables=redact_variables({k: v for k, v in os.environ.items() if _TELLING.match(k)}),
    )


def this_user() -> str:
    """The name of who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no name for its user
        return "unknown"


def clipped(text: str, limit: int = MAX_DIFF_CHARS) -> str:
    """`text`, cut at `limit` characters and saying so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit} more characters]\n"


def _git(*arguments: str, folder: Path | None) -> str | None:
    """What git says in `folder`, None where there is no git, no repository or no patience."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace").strip()


@cache
def _packages() -> dict[str, str]:
    """Looked up once a process: each is a file to read."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
