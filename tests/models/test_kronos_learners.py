"""Kronos' losses are the authors', and its own validation loss neither leaks nor wavers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foresweep.data.splits import make_split
from foresweep.data.windows import TrainWindows
from foresweep.models.base import Resources
from foresweep.models.kronos import KronosPredictor
from foresweep.models.kronos_config import architecture_of
from foresweep.models.kronos_data import TrainingBars
from foresweep.models.kronos_learners import (
    PredictorLearner,
    TokenizerLearner,
    encode,
    token_logits,
    token_loss,
)
from foresweep.models.kronos_networks import Nets, build
from kronos_tiny import HORIZON, config, forecast, windows_of
from panels import make_panel

PANEL = make_panel(2, 300)


@pytest.fixture
def nets() -> Nets:
    torch.manual_seed(0)
    return build(architecture_of(config(num_layers=2, dropout=0.2)))


@pytest.fixture
def bars() -> TrainingBars:
    split = make_split(PANEL, HORIZON)
    return TrainingBars(TrainWindows(PANEL, split, split.part("train")), 32, HORIZON, "return")


def learner(kind: type, nets: Nets, bars: TrainingBars) -> TokenizerLearner | PredictorLearner:
    return kind(nets, bars, KronosPredictor(nets, config(), Resources()))


def test_the_tokenizer_loss_is_the_authors_formula(nets: Nets, bars: TrainingBars) -> None:
    stage = learner(TokenizerLearner, nets, bars)
    batch = stage.draw(np.random.default_rng(0), 5)
    (coarse, both), quantizer_loss, _, _ = nets.tokenizer(batch[0])
    wanted = (F.mse_loss(coarse, batch[0]) + F.mse_loss(both, batch[0]) + quantizer_loss) / 2
    torch.testing.assert_close(stage.loss(batch), wanted)


def test_the_predictor_loss_is_next_token_cross_entropy(nets: Nets, bars: TrainingBars) -> None:
    stage = learner(PredictorLearner, nets, bars)
    batch = stage.draw(np.random.default_rng(0), 5)
    torch.manual_seed(3)
    found = stage.loss(batch)
    coarse, fine = encode(nets.tokenizer, batch[0])
    torch.manual_seed(3)
    logits = nets.predictor(coarse[:, :-1], fine[:, :-1], batch[1][:, :-1])
    pairs = zip(logits, (coarse, fine), strict=True)
    wanted = sum(F.cross_entropy(one.transpose(1, 2), ids[:, 1:]) for one, ids in pairs) / 2
    torch.testing.assert_close(found, wanted)


def test_the_tokenizer_stands_still_while_the_predictor_learns(
    nets: Nets, bars: TrainingBars
) -> None:
    stage = learner(PredictorLearner, nets, bars)
    stage.module.train()
    stage.loss(stage.draw(np.random.default_rng(0), 5)).backward()
    assert all(p.grad is None for p in nets.tokenizer.parameters())
    assert not nets.tokenizer.training
    trained = [p.grad for name, p in nets.predictor.named_parameters()]
    assert all(g is not None for g in trained)


def test_a_later_bar_moves_no_earlier_logit_although_the_packages_eval_mode_lets_it(
    nets: Nets, bars: TrainingBars
) -> None:
    x, stamps = learner(TokenizerLearner, nets, bars).draw(np.random.default_rng(0), 2)
    coarse, fine = encode(nets.tokenizer, x)
    at = 20
    moved = fine.clone()
    moved[:, at] = (moved[:, at] + 1) % 16

    def ours(tokens: torch.Tensor) -> torch.Tensor:
        return token_logits(nets.predictor, coarse, tokens, stamps)[1]

    def theirs(tokens: torch.Tensor) -> torch.Tensor:
        nets.predictor.eval()
        with torch.no_grad():
            seen = coarse[:, :-1], tokens[:, :-1], stamps[:, :-1]
            return nets.predictor(*seen, use_teacher_forcing=True, s1_targets=coarse[:, 1:])[1]

    assert torch.equal(ours(fine)[:, :at], ours(moved)[:, :at])
    assert not torch.equal(ours(fine)[:, at:], ours(moved)[:, at:])
    assert not torch.equal(theirs(fine)[:, :at], theirs(moved)[:, :at]), "the trap is gone"


def test_the_own_loss_is_the_same_twice_and_leaves_the_mode_alone(
    nets: Nets, bars: TrainingBars
) -> None:
    x, stamps = learner(TokenizerLearner, nets, bars).draw(np.random.default_rng(0), 4)
    nets.predictor.train()
    torch.manual_seed(0)
    first = token_loss(nets, x, stamps)
    torch.manual_seed(1)
    assert token_loss(nets, x, stamps) == first
    assert nets.predictor.training
    assert nets.predictor.dep_layer.cross_attn.training


def test_what_was_looked_at_in_inference_mode_can_still_be_trained(
    nets: Nets, bars: TrainingBars
) -> None:
    """The nets keep rotary tables of the last length between calls."""
    first, second = (learner(k, nets, bars) for k in (TokenizerLearner, PredictorLearner))
    x, stamps = second.draw(np.random.default_rng(0), 4)
    coarse, fine = encode(nets.tokenizer, x)
    nets.tokenizer.requires_grad_(True)
    with torch.inference_mode():
        token_logits(nets.predictor, coarse, fine, stamps)
    nets.predictor(coarse[:, :-1], fine[:, :-1], stamps[:, :-1])[0].sum().backward()
    with torch.inference_mode():
        token_loss(nets, x[:, :30], stamps[:, :30])
    first.loss((x[:, :30], stamps[:, :30])).backward()
    with torch.inference_mode():
        forecast(second.predictor(), windows_of(PANEL), first=2)
    first.loss((x[:, :32], stamps[:, :32])).backward()
