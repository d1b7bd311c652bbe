"""Who does the work of a sweep: which engine, how many workers, on which GPUs, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from foresweep.errors import UnknownName, UsageError
from foresweep.search.engine import Engine
from foresweep.search.local import LocalEngine

ENGINES = ("local",)


@dataclass(frozen=True, slots=True)
class Crew:
    """What a head has at hand. No part of the question: another crew gives the same answers."""

    engine: str = "local"
    workers: int = 1
    gpus: tuple[str, ...] = ()  # CUDA device numbers, one worker each
    trial_timeout_s: float | None = None  # a trial that takes longer is ended

    @property
    def slots(self) -> int:
        """Trials at once, as far as the crew says it."""
        return len(self.gpus) or self.workers

    def checked(self) -> Crew:
        """This crew. Raises UnknownName, UsageError."""
        if self.engine not in ENGINES:
            raise UnknownName("engine", self.engine, ENGINES)
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least 1")
        if self.gpus and self.workers > 1:
            raise UsageError(
                f"--workers {self.workers} beside --gpus {','.join(self.gpus)}: each GPU has one "
                f"worker; leave --workers out"
            )
        return self


def make_engine(crew: Crew, models: tuple[str, ...]) -> Engine:
    """The engine of a crew, not warmed up. Raises MissingExtra."""
    return LocalEngine(models, workers=crew.workers, gpus=crew.gpus)
