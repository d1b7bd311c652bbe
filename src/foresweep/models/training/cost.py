"""What a training costs, seen from outside: steps as they end, networks as they stand.

Works for any family that trains with torch, a plug-in's too: it looks at optimisers and networks,
not at families.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

DEEPEST = 3
"""Levels of attributes in which a predictor's networks are looked for."""


@dataclass(slots=True)
class Stage:
    """The steps of one optimiser."""

    trained_parameters: int
    ends: list[float] = field(default_factory=list)  # seconds, of each step

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the steps after the first, which pays for what is set up once; now and then
        a state is written between two of them, which the median does not see."""
        gaps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        return median(gaps) if gaps else None


@contextmanager
def watched_steps() -> Iterator[list[Stage]]:
    """Inside, every step of every torch optimiser is noted; one stage an optimiser, in order."""
    from torch.optim import Optimizer
    from torch.optim.optimizer import register_optimizer_step_post_hook

    stages: dict[int, Stage] = {}
    alive = []  # keeps an optimiser's identity from being taken by the next

    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) not in stages:
            groups = optimizer.param_groups
            count = sum(p.numel() for g in groups for p in g["params"])
            stages[id(optimizer)] = Stage(count)
            found.append(stages[id(optimizer)])
            alive.append(optimizer)
        stages[id(optimizer)].ends.append(time.perf_counter())

    found: list[Stage] = []
    handle = register_optimizer_step_post_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def count_parameters(predictor: object) -> int:
    """Parameters of all networks that a predictor holds, each once."""
    every = {id(p): p.numel() for module in _networks(predictor) for p in module.parameters()}
    return sum(every.values())


def peak_device_memory_mb(device: str) -> float | None:
    """MiB that this process held on a CUDA device at most; None on others."""
    import torch

    if not device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated(torch.device(device)) / 2**20


def _networks(holder: object, depth: int = DEEPEST) -> Iterator[nn.Module]:
    from torch import nn

    if isinstance(holder, nn.Module):
        yield holder
    elif depth:
        for value in _held(holder):
            yield from _networks(value, depth - 1)


def _held(holder: object) -> list[Any]:
    """What an object's attributes, or a tuple, list or mapping, hold."""
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, list | tuple):
        return list(holder)
    if is_dataclass(holder):
        return [getattr(holder, f.name) for f in fields(holder)]
    return list(getattr(holder, "__dict__", {}).values())
