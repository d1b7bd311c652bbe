"""What a step is made of: the learning rate, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import optimization
from transformers.trainer_pt_utils import get_parameter_names

from foresweep.models.base import Resources, make_config
from foresweep.models.training.config import TrainingConfig
from foresweep.models.training.optimisation import (
    adamw,
    every_parameter,
    float32,
    half_precision,
    learning_rate,
    no_norm_or_bias,
)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.1), (7, 0.0), (20, 0.5), (1, 0.9)])
def test_schedules_equal_those_of_transformers(schedule: str, steps: int, warmup: float) -> None:
    config = make_config(
        TrainingConfig,
        {"schedule": schedule, "max_steps": steps, "warmup_fraction": warmup, "lr": 0.5},
        model="toto",
    )
    name = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}.get(
        schedule, schedule
    )
    warm = int(steps * warmup)
    decay = min(max(1, int(0.2 * steps)), steps - warm)
    more = {"num_decay_steps": decay, "decay_type": "linear"} if schedule == "wsd" else None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    oracle = optimization.get_scheduler(name, optimizer, warm, steps, more)
    for step in range(steps):
        assert learning_rate(config, step) == pytest.approx(oracle.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        oracle.step()


class Block(nn.Module):
    """One of each kind of parameter that the three families have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(4, 4)
        self.layer_norm = nn.LayerNorm(4)
        self.norm1 = nn.RMSNorm(4)
        self.normaliser = nn.Linear(4, 4, bias=False)


def test_decay_on_neither_norms_nor_biases_is_the_trainer_s() -> None:
    block = Block()
    names = [n for n, _ in block.named_parameters()]
    theirs = get_parameter_names(block, [nn.LayerNorm, nn.RMSNorm], ["bias"])
    assert [n for n in names if no_norm_or_bias(n)] == theirs
    assert theirs == ["attention.weight", "normaliser.weight"]


def test_the_optimiser_holds_every_trained_parameter_once() -> None:
    block = Block()
    block.normaliser.weight.requires_grad_(False)
    config = TrainingConfig(weight_decay=0.3, beta2=0.95)
    optimizer = adamw(block, config, Resources(), no_norm_or_bias)
    held = [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert held == [(0.3, 1), (0.0, 4)]
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    (group,) = adamw(block, config, Resources(), every_parameter).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.3, 5)


def test_a_learner_can_leave_bf16_for_a_part() -> None:
    x = torch.ones(2, 2)
    with half_precision(TrainingConfig(precision="bf16"), "cpu"):
        assert (x @ x).dtype == torch.bfloat16
        with float32("cpu"):
            assert (x @ x).dtype == torch.float32
    with half_precision(TrainingConfig(precision="fp32"), "cpu"):
        assert (x @ x).dtype == torch.float32
