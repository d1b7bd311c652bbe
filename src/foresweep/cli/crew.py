"""Options of `sweep` about who does the work, for how long, and from where on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.errors import UsageError

if TYPE_CHECKING:
    from foresweep.search.crew import Crew


class EngineName(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"


Workers = Annotated[
    int | None,
    typer.Option(
        help="Trials at once, each in its own process. Default: 1; what a Ray cluster has room "
        "for.",
        min=1,
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        help="CUDA device numbers, e.g. 0,1: one worker each, which sees no other.", metavar="LIST"
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="local: processes of this machine; ray: a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: host:port of the cluster, or auto. Default: one on this machine.",
        metavar="HOST:PORT",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: fsspec URL by which files travel. Default: all nodes see the runs "
        "folder under the same path.",
        metavar="URL",
    ),
]
CpusPerTrial = Annotated[
    float | None, typer.Option(help="With --engine ray: CPUs of a trial. Default: 1.", min=0)
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(help="With --engine ray: GPUs of a trial; 0.5 shares one. Default: 0.", min=0),
]
TrialTimeout = Annotated[
    str | None,
    typer.Option(help="End a trial that takes longer, e.g. 90min; it fails.", metavar="TIME"),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        help="Begin no trial later than this after the start, e.g. 2h; running ones are finished.",
        metavar="TIME",
    ),
]
StepBudget = Annotated[
    int | None, typer.Option(help="Optimiser steps of all trials together, at most.", min=1)
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        help="Go on with this sweep (or latest): broken-off trials go on from their last training "
        "state. A sweep that is running gets this process as a further head.",
        metavar="SWEEP",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only list what would be trained, and what it would cost."),
]
UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
FEW_CORES = 4


def as_seconds(option: str, text: str | None) -> float | None:
    """`90s`, `30min`, `2h`, `1h30min`, `1d`, or a number of seconds. Raises UsageError.

    >>> as_seconds("--time-budget", "1h30min")
    5400.0
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    units = [unit for _, unit in parts]
    alone = len(parts) == 1
    known = all(u in UNITS or (not u and alone) for u in units)
    if not parts or not known or whole != re.sub(r"\s", "", text.lower()):
        raise UsageError(f"{option} {text!r}: write it as 90s, 30min, 2h or 1h30min")
    found = float(sum(float(number) * UNITS.get(unit, 1) for number, unit in parts))
    if found <= 0:
        raise UsageError(f"{option} {text!r}: it must be longer than nothing")
    return found


@dataclass(frozen=True, slots=True)
class Hands:
    """The options about who does the work."""

    workers: Workers = None
    gpus: Gpus = None
    engine: EngineOption = EngineName.local
    address: Address = None
    storage: Storage = None
    cpus_per_trial: CpusPerTrial = None
    gpus_per_trial: GpusPerTrial = None
    trial_timeout: TrialTimeout = None


def make_crew(hands: Hands) -> Crew:
    """Raises UsageError, UnknownName."""
    from foresweep.search.crew import Crew

    numbers = tuple(n.strip() for n in (hands.gpus or "").split(",") if n.strip())
    if hands.gpus is not None and (not numbers or not all(n.isdigit() for n in numbers)):
        raise UsageError(f"--gpus {hands.gpus!r}: write device numbers, e.g. --gpus 0,1")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--gpus {hands.gpus}: each GPU has one worker; name each once")
    return Crew(
        engine=hands.engine.value,
        workers=hands.workers,
        gpus=numbers,
        trial_timeout_s=as_seconds("--trial-timeout", hands.trial_timeout),
        address=hands.address,
        storage=hands.storage,
        trial_cpus=hands.cpus_per_trial,
        trial_gpus=hands.gpus_per_trial,
    ).checked()


def threads_each(asked: int | None, workers: int) -> int:
    """Torch threads of a trial: 1 on few cores, where two spinning teams are many times slower
    than one; else the cores shared among the workers."""
    cores = os.cpu_count() or 1
    if asked is not None:
        return asked
    return 1 if cores <= FEW_CORES else max(1, cores // workers)
