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
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foresweep.tracker.hardware import cpu_model, gpu_models, memory_mb
from foresweep.tracker.redaction import redact, redact_command, redact_variables

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


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
