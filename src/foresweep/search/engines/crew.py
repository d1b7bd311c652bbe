"""Who does the work of a sweep: which engine, how many workers, on which GPUs, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from foresweep.errors import UnknownName, UsageError
from foresweep.search.engines.base import Engine
from foresweep.search.engines.local import LocalEngine

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


@dataclass(frozen=True, slots=True)
class Crew:
    """What a head has at hand. No part of the question: another crew gives the same answers."""

    engine: str = LOCAL
    workers: int | None = None  # trials at once; None: one here, what a cluster has room for there
    gpus: tuple[str, ...] = ()  # local: CUDA device numbers, one worker each
    trial_timeout_s: float | None = None  # a trial that takes longer is ended
    address: str | None = None  # ray: of a running cluster; None: one is started on this machine
    storage: str | None = None  # ray: fsspec URL by which files travel; None: shared folders
    trial_cpus: float | None = None  # ray: what a trial takes of a node; None: 1
    trial_gpus: float | None = None  # None: 0

    @property
    def slots(self) -> int:
        """Trials at once, as far as the crew says it."""
        return len(self.gpus) or self.workers or 1

    def checked(self) -> Crew:
        """This crew. Raises UnknownName, UsageError."""
        if self.engine not in ENGINES:
            raise UnknownName("engine", self.engine, ENGINES)
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least 1")
        of_ray = {
            "--address": self.address,
            "--storage": self.storage,
            "--cpus-per-trial": self.trial_cpus,
            "--gpus-per-trial": self.trial_gpus,
        }
        idle = [n for n, value in of_ray.items() if value is not None]
        if self.engine == LOCAL and idle:
            raise UsageError(f"{idle[0]} is for --engine ray; local workers have no such thing")
        if self.engine == RAY and self.gpus:
            raise UsageError("--gpus is for local workers; a cluster shares by --gpus-per-trial")
        if self.gpus and self.workers is not None:
            raise UsageError(
                f"--workers {self.workers} beside --gpus {','.join(self.gpus)}: each GPU has one "
                f"worker; leave --workers out"
            )
        return self


def make_engine(crew: Crew, models: tuple[str, ...]) -> Engine:
    """The engine of a crew, not warmed up. Raises MissingExtra, UsageError."""
    if crew.engine == LOCAL:
        return LocalEngine(models, workers=crew.workers or 1, gpus=crew.gpus)
    from foresweep.search.engines.ray import RayEngine

    return RayEngine(
        models,
        address=crew.address,
        cpus=1.0 if crew.trial_cpus is None else crew.trial_cpus,
        gpus=crew.trial_gpus or 0.0,
        workers=crew.workers,
        storage=crew.storage,
    )
