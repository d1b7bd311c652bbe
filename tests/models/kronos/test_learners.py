"""Kronos' losses are the authors', and its own validation loss neither leaks nor wavers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.models.base import Resources
from foresweep.models.kronos.config import Nets, architecture_of, build
from foresweep.models.kronos.model import (
    KronosPredictor,
    PredictorLearner,
    TokenizerLearner,
    Tokens,
    TrainingBars,
    encode,
    time_stamps,
)
from foresweep.models.training.optimisation import Drawn
from kronos_tiny import HORIZON, config, forecast, token_logits, token_loss, windows_of
from panels import make_panel

PANEL = make_panel(2, 300)


@pytest.fixture
def nets() -> Nets:
    torch.manual_seed(0)
    return build(architecture_of(config(num_layers=2, dropout=0.2)))


@pytest.fixture
def bars() -> TrainingBars:
    split = make_split(PANEL, Cut(HORIZON))
    return TrainingBars(TrainWindows(PANEL, split, split.part("train")), config(), HORIZON)


def windows(bars: TrainingBars, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x [size, T, 6] and time stamps [size, T, 5] of drawn windows."""
    drawn = bars.draw(np.random.default_rng(0), size)
    return torch.from_numpy(bars.seen(drawn.bars)), torch.from_numpy(time_stamps(drawn.timestamps))


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
    coarse, fine = batch[0].unbind(-1)
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
    x, stamps = windows(bars, 2)
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
    x, stamps = windows(bars, 4)
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
    x, stamps = windows(bars, 4)
    coarse, fine = encode(nets.tokenizer, x)
    nets.tokenizer.requires_grad_(True)
    with torch.inference_mode():
        token_logits(nets.predictor, coarse, fine, stamps)
    nets.predictor(coarse[:, :-1], fine[:, :-1], stamps[:, :-1])[0].sum().backward()
    with torch.inference_mode():
        token_loss(nets, x[:, :30], stamps[:, :30])
    first.loss((x[:, :30],)).backward()
    with torch.inference_mode():
        forecast(second.predictor(), windows_of(PANEL), first=2)
    first.loss((x[:, :32],)).backward()


class Counting:
    """A tokenizer that counts the windows it encodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.encoded = tokenizer, 0

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter(self._tokenizer.parameters())

    def encode(self, x: torch.Tensor, half: bool) -> Any:
        self.encoded += len(x)
        return self._tokenizer.encode(x, half=half)


def fresh(nets: Nets, bars: TrainingBars, drawn: Drawn) -> torch.Tensor:
    """Tokens as the tokenizer gives them now."""
    return torch.stack(encode(nets.tokenizer, torch.from_numpy(bars.seen(drawn.bars))), dim=-1)


def test_a_window_drawn_again_is_not_encoded_again(nets: Nets, bars: TrainingBars) -> None:
    counting = Counting(nets.tokenizer)
    memory, rng = Tokens(counting, bars), np.random.default_rng(0)
    seen: set[tuple[int, int]] = set()
    for _ in range(20):
        drawn = bars.draw(rng, 16)
        assert torch.equal(memory.of(drawn), fresh(nets, bars, drawn))
        seen |= set(zip(drawn.item.tolist(), drawn.row.tolist(), strict=True))
    assert len(seen) <= counting.encoded < 20 * 16


def test_a_mirrored_or_merged_window_is_another_one(nets: Nets) -> None:
    split = make_split(PANEL, Cut(HORIZON))
    train = TrainWindows(PANEL, split, split.part("train"))
    bars = TrainingBars(train, config(sign_flip=True, time_scale=2), HORIZON)
    memory, rng = Tokens(nets.tokenizer, bars), np.random.default_rng(0)
    for _ in range(10):
        drawn = bars.draw(rng, 64)
        assert torch.equal(memory.of(drawn), fresh(nets, bars, drawn))


def test_what_the_memory_has_no_room_for_is_encoded_each_time(
    nets: Nets, bars: TrainingBars
) -> None:
    drawn = bars.draw(np.random.default_rng(0), 4)
    counting = Counting(nets.tokenizer)
    memory = Tokens(counting, bars, limit=2 * 2 * 36 * 2)  # two windows of 36 bars
    wanted = fresh(nets, bars, drawn)
    for _ in range(3):
        assert torch.equal(memory.of(drawn), wanted)
    assert counting.encoded == 4 + 2 + 2


def test_no_token_outlives_the_tokenizer_that_made_it(nets: Nets, bars: TrainingBars) -> None:
    first = learner(PredictorLearner, nets, bars)
    before = first.draw(np.random.default_rng(0), 8)[0]
    nets.tokenizer.requires_grad_(True)
    tuned = learner(TokenizerLearner, nets, bars)
    tuned.loss(tuned.draw(np.random.default_rng(1), 8)).backward()
    with torch.no_grad():
        for parameter in nets.tokenizer.parameters():
            parameter -= 0.5 * parameter.grad
    again = learner(PredictorLearner, nets, bars).draw(np.random.default_rng(0), 8)[0]
    wanted = fresh(nets, bars, bars.draw(np.random.default_rng(0), 8))
    assert torch.equal(again, wanted)
    assert not torch.equal(again, before)
