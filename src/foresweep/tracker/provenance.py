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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MAX_DIFF_CHARS = 65_536
GIT_TIMEOUT_S = 2.0
PACKAGES = (
    *("foresweep", "numpy", "pandas", "polars", "torch", "transformers", "peft", "safetensors"),
    *("timecopilot-toto", "kronos-finance", "chronos-forecasting", "sqlalchemy"),
)
HIDDEN = "***"

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
_IN_URL = re.compile(r"(?P<keep>\b[a-z][\w+.-]*://[^\s/:@]*:)[^\s/]+(?=@)", re.IGNORECASE)
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
        git_diff=clipped(redact(diff)) if diff else None,
        command=redact_command(sys.argv),
        folder=str(folder or Path.cwd()),
        python=platform.python_version(),
        packages=_packages(),
        host=platform.node(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 1,
    )


def this_user() -> str:
    """The name of who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no name for its user
        return "unknown"


def redact(text: str) -> str:
    """`text` without passwords, tokens and keys: in URLs, after telling names, of known forms."""
    text = _DOT_ENV.sub(f"diff of a .env file: {HIDDEN}\n", text)
    text = _KEY_BLOCK.sub(HIDDEN, text)
    text = _IN_URL.sub(rf"\g<keep>{HIDDEN}", text)
    text = _BEARER.sub(rf"\g<keep>{HIDDEN}", text)
    text = _NAMED.sub(rf"\g<keep>{HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def redact_command(words: Sequence[str]) -> str:
    """A command line in one text; what follows a telling flag is hidden whatever it looks like."""
    shown, hide = [], False
    for word in words:
        shown.append(HIDDEN if hide else redact(word))
        hide = _FLAG.fullmatch(word) is not None
    return " ".join(shown)


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


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
