"""The training loop, on a linear model small enough to check by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foresweep.errors import CheckpointError, TrainingDiverged
from foresweep.models.base import Resources, Scored, TrainingJob, TrialPruned, unscored
from foresweep.models.training.config import TrainingConfig
from foresweep.models.training.loop import (
    EVALUATIONS,
    clear_states,
    finish,
    fit,
    seeded,
    state_file,
)

CONFIG = TrainingConfig(lr=0.05, batch_size=8, max_steps=32, schedule="cosine", weight_decay=0.0)


class Line:
    """Learns y = 3x by least squares, through a dropout layer so that torch's state matters."""

    def __init__(self, dropout: float = 0.1, explode_at: int | None = None) -> None:
        self.module = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(1, 1))
        self.explode_at, self.calls = explode_at, 0

    def draw(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, ...]:
        x = torch.from_numpy(rng.standard_normal((size, 1))).float()
        return x, 3 * x

    def loss(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        self.calls += 1
        x, y = batch
        loss = ((self.module(x) - y) ** 2).mean()
        return loss * math.nan if self.calls == self.explode_at else loss

    def predictor(self) -> Any:
        return self


def make_line(seed: int = 0, **options: Any) -> Line:
    with seeded(seed, Resources()):
        return Line(**options)


class Notes:
    """A reporter and a scorer that remember what they were told."""

    def __init__(self, pinballs: tuple[float, ...] = (), prune_at: int | None = None) -> None:
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.modes: list[bool] = []
        self.weights: list[float] = []
        self.pinballs, self.prune_at = pinballs, prune_at

    def report(self, step: int, scores: Any, losses: Any = None) -> None:
        self.reports.append((step, dict(scores)))
        if step == self.prune_at:
            raise TrialPruned

    def score(self, predictor: Any) -> Scored:
        torch.rand(3)  # a forecast may draw; training must not notice
        weight = float(predictor.module[1].weight.detach())
        self.modes.append(predictor.module.training)
        self.weights.append(weight)
        k = len(self.weights) - 1
        value = self.pinballs[k] if k < len(self.pinballs) else abs(weight - 3)
        return Scored({"tune_pinball": value}, {})

    @property
    def evaluations(self) -> list[int]:
        return [step for step, scores in self.reports if "tune_pinball" in scores]


def run(
    tmp_path: Path,
    *,
    line: Line | None = None,
    notes: Notes | None = None,
    config: TrainingConfig = CONFIG,
    resources: Resources | None = None,
    seed: int = 0,
    **more: Any,
) -> tuple[Any, torch.Tensor, Notes]:
    line, notes = line or make_line(seed), notes or Notes()
    of_fit = {k: more.pop(k) for k in ("first_step", "decays") if k in more}
    more = {"score": notes.score, "report": notes.report, "out": tmp_path / "out", **more}
    job = TrainingJob(None, config, resources or Resources(), seed=seed, horizon=1, **more)
    fitted = fit(line, job, **of_fit)
    return fitted, line.module[1].weight.detach().clone(), notes


def test_training_lowers_the_loss_and_finds_the_slope(tmp_path: Path) -> None:
    line = make_line(dropout=0.0)
    fitted, weight, _ = run(tmp_path, line=line, config=replace(CONFIG, max_steps=200, lr=0.1))
    assert abs(float(weight) - 3) < 0.05
    assert fitted.final_loss < 0.01


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second, other = (run(tmp_path / str(k), seed=k // 2)[1] for k in range(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_module_handed_over_in_eval_mode_is_trained_in_train_mode(tmp_path: Path) -> None:
    asleep = make_line(dropout=0.5)
    asleep.module.eval()
    weight = run(tmp_path / "a", line=asleep)[1]
    assert torch.equal(run(tmp_path / "b", line=make_line(dropout=0.5))[1], weight)


def test_the_callers_random_state_and_settings_are_as_before(tmp_path: Path) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    expected, noise = torch.rand(2), np.random.random()
    torch.manual_seed(7)
    np.random.seed(7)
    run(tmp_path)
    assert torch.equal(torch.rand(2), expected)
    assert np.random.random() == noise
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_forecast_during_training_changes_no_weight(tmp_path: Path) -> None:
    _, scored, _ = run(tmp_path / "a", notes=Notes(tuple(range(EVALUATIONS, 0, -1))))
    _, blind, _ = run(tmp_path / "b", score=unscored)
    assert torch.equal(scored, blind)


def test_scoring_happens_in_eval_mode_and_training_goes_on_in_train_mode(tmp_path: Path) -> None:
    line = make_line()
    _, _, notes = run(tmp_path, line=line)
    assert notes.modes == [False] * EVALUATIONS
    assert not line.module.training  # and it is handed over ready to forecast


def test_scorings_are_evenly_spaced_and_end_with_the_training(tmp_path: Path) -> None:
    _, _, notes = run(tmp_path)
    assert notes.evaluations == [4, 8, 12, 16, 20, 24, 28, 32]
    shown = dict(notes.reports)[32]
    assert {"train_loss", "lr", "tune_pinball"} <= set(shown)


def test_a_training_shorter_than_the_scorings_is_scored_at_every_step(tmp_path: Path) -> None:
    _, _, notes = run(tmp_path, config=replace(CONFIG, max_steps=3))
    assert notes.evaluations == [1, 2, 3]


def test_the_kept_step_is_the_best_by_tune_pinball(tmp_path: Path) -> None:
    notes = Notes((5.0, 4.0, 1.0, 3.0, 1.0, 2.0, math.nan, 9.0))
    fitted, weight, _ = run(tmp_path, notes=notes)
    assert (fitted.step, fitted.best) == (12, 1.0)
    assert float(weight) == notes.weights[2]


@pytest.mark.parametrize(
    ("pinballs", "still"),
    [
        ((9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0), True),
        ((9.0, 8.0, 7.0, 6.0, 5.0, 2.0, 2.0, 1.97), True),  # 1.5 % in the last quarter
        ((9.0, 8.0, 7.0, 6.0, 5.0, 2.0, 1.995, 1.99), False),  # it has all but converged
        ((9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 1.0, 2.0), False),  # its best is behind it
        ((math.nan,) * EVALUATIONS, False),
    ],
)
def test_a_training_whose_last_step_is_its_best_and_that_still_fell_is_still_learning(
    tmp_path: Path, pinballs: tuple[float, ...], still: bool
) -> None:
    """And keeps the state to go on from: the same as was seen by who goes on."""
    notes = Notes(pinballs)
    fitted, weight, _ = run(tmp_path, notes=notes)
    assert fitted.still_learning is still
    job = TrainingJob(None, CONFIG, horizon=1, out=tmp_path / "out")
    finish(job, "line", fitted, weights={"w": weight}, network={})
    assert state_file(tmp_path / "out", 0).exists() is still


def test_a_training_that_goes_on_to_more_steps_is_not_begun_anew(tmp_path: Path) -> None:
    _, _, first = run(tmp_path, notes=Notes((9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0)))
    longer = replace(CONFIG, max_steps=64)
    line = make_line()
    fitted, _, notes = run(
        tmp_path, line=line, config=longer, notes=Notes((1.5, 1.4, 1.3, 1.2)),
        resume=tmp_path / "out",
    )  # fmt: skip
    assert first.evaluations[-1] == 32
    assert notes.evaluations == [40, 48, 56, 64]
    assert line.calls == 32
    assert fitted.still_learning


def test_without_a_finite_score_the_last_step_is_kept(tmp_path: Path) -> None:
    fitted, weight, notes = run(tmp_path, notes=Notes((math.nan,) * EVALUATIONS))
    assert fitted.step == 32
    assert math.isnan(fitted.best)
    assert float(weight) == notes.weights[-1]


def test_micro_batches_give_the_mean_over_the_whole_batch(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", line=make_line(dropout=0.0))[1]
    for size in (1, 3, 8, 100):
        resources = Resources(micro_batch=size)
        parts = run(tmp_path / str(size), line=make_line(dropout=0.0), resources=resources)[1]
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


class Killed(Exception):
    pass


FEATURES: tuple[dict[str, Any], ...] = (
    {},
    {"ema_decay": 0.9},
    {"patience": 4, "schedule": "wsd"},
    {"precision": "bf16", "beta2": 0.9, "weight_decay": 0.1, "schedule": "linear"},
    {"ema_decay": 0.8, "patience": 3, "precision": "bf16", "schedule": "constant"},
)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: "+".join(f) or "plain")
@pytest.mark.parametrize(("dies_after", "micro_batch"), [(4, None), (12, 3), (16, None)])
def test_a_resumed_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, dies_after: int, micro_batch: int | None, features: dict[str, Any]
) -> None:
    scores = (5.0, 1.0, 4.0, 3.0, 6.0, 7.0, 8.0, 9.0)
    config = replace(CONFIG, **features)
    resources = Resources(micro_batch=micro_batch)
    unbroken, weight, notes = run(
        tmp_path / "a", notes=Notes(scores), config=config, resources=resources
    )
    half = Notes(scores)

    def dies(predictor: Any) -> Scored:
        if len(half.weights) * 4 == dies_after:
            raise Killed
        return half.score(predictor)

    with pytest.raises(Killed):
        run(tmp_path / "b", notes=half, score=dies, config=config, resources=resources)
    rest = Notes(scores[dies_after // 4 :])
    again = make_line(seed=5)  # its own initialisation must not matter
    fitted = fit(
        again,
        TrainingJob(
            None,
            config,
            resources,
            horizon=1,
            report=rest.report,
            score=rest.score,
            out=tmp_path / "c" / "out",
            resume=tmp_path / "b" / "out",
        ),
    )
    assert fitted == unbroken
    assert torch.equal(again.module[1].weight, weight)
    assert half.weights + rest.weights == notes.weights


def test_resuming_a_finished_stage_trains_no_further(tmp_path: Path) -> None:
    fitted, weight, _ = run(tmp_path)
    line = make_line()
    again, same, _ = run(tmp_path, line=line, resume=tmp_path / "out")
    assert line.calls == 0
    assert again == fitted
    assert torch.equal(weight, same)


def test_stages_keep_their_states_apart_and_all_are_cleared(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path)
    _, _, notes = run(tmp_path, first_step=32)
    assert notes.evaluations[0] == 36
    assert state_file(out, 0).is_file()
    assert state_file(out, 32).is_file()
    clear_states(out)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_training_state_is_named(tmp_path: Path) -> None:
    file = state_file(tmp_path / "out", 0)
    file.parent.mkdir()
    file.write_bytes(b"\0" * 64)
    with pytest.raises(CheckpointError, match=r"0\.safetensors is not a training state"):
        run(tmp_path, resume=tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_training_with_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 11 \(lr 0\.0"):
        run(tmp_path, line=make_line(explode_at=11))


def test_pruning_passes_through(tmp_path: Path) -> None:
    with pytest.raises(TrialPruned):
        run(tmp_path, notes=Notes(prune_at=8))


def test_averaged_weights_are_what_is_scored_and_kept(tmp_path: Path) -> None:
    plain, averaged = Notes((math.nan,) * EVALUATIONS), Notes((math.nan,) * EVALUATIONS)
    steps = {"max_steps": 3, "warmup_fraction": 0.0}
    begin = float(make_line().module[1].weight.detach())
    run(tmp_path / "a", notes=plain, config=replace(CONFIG, **steps))
    config = replace(CONFIG, **steps, ema_decay=0.2)
    _, kept, _ = run(tmp_path / "b", notes=averaged, config=config)
    expected = begin
    for n, live in enumerate(plain.weights, start=1):
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * live
        assert averaged.weights[n - 1] == pytest.approx(expected, rel=1e-6)
    assert float(kept) == averaged.weights[-1]


def test_the_best_averaged_weights_come_back(tmp_path: Path) -> None:
    notes = Notes((5.0, 4.0, 1.0, 3.0, 1.0, 2.0, math.nan, 9.0))
    fitted, weight, _ = run(tmp_path, notes=notes, config=replace(CONFIG, ema_decay=0.9))
    assert (fitted.step, float(weight)) == (12, notes.weights[2])


def test_without_a_scorer_the_last_average_is_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, ema_decay=0.9)
    notes = Notes((math.nan,) * EVALUATIONS)
    run(tmp_path / "a", notes=notes, config=config)
    _, weight, _ = run(tmp_path / "b", score=unscored, config=config)
    assert float(weight) == notes.weights[-1]


def test_patience_ends_a_training_that_gets_no_better(tmp_path: Path) -> None:
    scores = (3.0, 4.0, 2.0, 2.0, math.nan, 5.0, 1.0, 1.0)
    fitted, weight, notes = run(tmp_path, notes=Notes(scores), config=replace(CONFIG, patience=3))
    assert notes.evaluations == [4, 8, 12, 16, 20, 24]
    assert (fitted.step, fitted.best, float(weight)) == (12, 2.0, notes.weights[2])
    patient = run(tmp_path / "b", notes=Notes(scores), config=replace(CONFIG, patience=4))
    assert patient[0].step == 28


def test_a_training_that_patience_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    config = replace(CONFIG, patience=1)
    fitted, weight, _ = run(tmp_path, notes=Notes((1.0, 2.0)), config=config)
    line = make_line()
    again, same, _ = run(tmp_path, line=line, config=config, resume=tmp_path / "out")
    assert (line.calls, again) == (0, fitted)
    assert torch.equal(same, weight)


def test_where_nothing_is_trained_the_weights_are_scored_once_as_they_are(tmp_path: Path) -> None:
    line = make_line()
    before = line.module[1].weight.detach().clone()
    fitted, weight, notes = run(
        tmp_path, line=line, config=replace(CONFIG, finetune="none"), first_step=7
    )
    assert torch.equal(weight, before)
    assert (line.calls, notes.modes, fitted.step) == (0, [False], 0)
    assert [step for step, _ in notes.reports] == [7]
    assert fitted.best == notes.reports[0][1]["tune_pinball"]
    assert math.isnan(fitted.final_loss)
    assert not line.module.training


def test_in_bf16_products_are_rounded_and_weights_are_not(tmp_path: Path) -> None:
    line = make_line(dropout=0.0)
    seen: list[torch.dtype] = []
    line.module.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    config = replace(CONFIG, precision="bf16")
    rounded = run(tmp_path / "a", line=line, config=config, score=unscored)[1]
    assert set(seen) == {torch.bfloat16}
    assert rounded.dtype == torch.float32
    exact = run(tmp_path / "b", line=make_line(dropout=0.0), score=unscored)[1]
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_weight_decay_leaves_out_what_a_family_says(tmp_path: Path) -> None:
    config = replace(CONFIG, weight_decay=10.0, max_steps=4)

    def biases(decays: Any) -> torch.Tensor:
        line = make_line(dropout=0.0)
        run(tmp_path, line=line, config=config, decays=decays)
        return line.module[1].bias.detach()

    kept, decayed = biases(lambda name: "bias" not in name), biases(lambda name: True)
    assert kept.abs() > decayed.abs()


@pytest.mark.parametrize("field", ["lr", "batch_size", "max_steps", "warmup_fraction", "schedule"])
def test_each_shared_hyperparameter_changes_the_weights(tmp_path: Path, field: str) -> None:
    values = {"lr": 0.01, "batch_size": 4, "max_steps": 20, "warmup_fraction": 0.5}
    changed = replace(CONFIG, **{field: values.get(field, "constant")})
    before = run(tmp_path / "a")[1]
    assert not torch.equal(before, run(tmp_path / "b", config=changed)[1])


@pytest.mark.parametrize(
    ("field", "value"), [("weight_decay", 1.0), ("gradient_clip", 0.01), ("beta2", 0.5)]
)
def test_decay_clipping_and_beta2_change_the_weights(
    tmp_path: Path, field: str, value: float
) -> None:
    before = run(tmp_path / "a")[1]
    assert not torch.equal(before, run(tmp_path / "b", config=replace(CONFIG, **{field: value}))[1])
