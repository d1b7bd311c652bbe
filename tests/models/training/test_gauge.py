"""Steps and parameters seen from outside, whatever the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from foresweep.models.training.loop import (
    OptimizerSteps,
    count_parameters,
    peak_device_memory_mb,
    watched_steps,
)


@dataclass(frozen=True, slots=True)
class Nets:
    first: nn.Module
    second: nn.Module


@dataclass(frozen=True, slots=True)
class Predictor:
    nets: Nets
    again: Any
    rate: float = 0.1


def stepped(module: nn.Module, steps: int) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(steps):
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()


def test_each_optimiser_is_a_stage_with_its_steps() -> None:
    with watched_steps() as stages:
        stepped(nn.Linear(3, 2), 4)
        stepped(nn.Linear(3, 1, bias=False), 2)
    assert [(s.trained_parameters, len(s.ends)) for s in stages] == [(8, 4), (3, 2)]
    stepped(nn.Linear(3, 2), 1)
    assert len(stages) == 2, "outside, nothing is noted"


def test_a_pause_between_two_steps_does_not_count() -> None:
    assert OptimizerSteps(1, [0.0, 1.0, 2.0, 9.0, 10.0, 11.0]).seconds_per_step == pytest.approx(
        1.0
    )
    assert OptimizerSteps(1, [0.0]).seconds_per_step is None


def test_every_parameter_that_a_predictor_holds_counts_once() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(2, 2, bias=False)
    held = Predictor(Nets(first, second), again=[first, {"head": second}])
    assert count_parameters(held) == 8 + 4


def test_a_cpu_has_no_memory_of_its_own() -> None:
    assert peak_device_memory_mb("cpu") is None
