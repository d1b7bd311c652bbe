"""Kronos behind the door: trains, forecasts, and is the same however it is asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foresweep.data.panel import Panel, panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import CheckpointError, ForecastError
from foresweep.models.base import DEFAULT_LEVELS, Checkpoint, Facts, Resources, TrainingJob
from foresweep.models.checkpoint import read_weights
from foresweep.models.kronos.config import Nets
from foresweep.models.kronos.model import ATTENTION_CELLS, Kronos, KronosPredictor, _stratified
from foresweep.models.registry import get_model
from foresweep.models.training.loop import state_file
from kronos_tiny import HORIZON, SHAPE, Notes, config, forecast, load, train, windows_of
from panels import make_frame, make_panel

PANEL = make_panel(3, 300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train(PANEL, config(), tmp_path_factory.mktemp("kronos") / "one")


def test_paths_fall_into_every_stratum_once_and_each_keeps_its_law() -> None:
    uniforms = np.random.default_rng(0).random((400, 2, 8, 3, 2))
    found = _stratified(uniforms)
    strata = np.sort(np.floor(found * 8).astype(int), axis=1)
    assert (strata == np.arange(8)[None, :, None, None]).all()
    one_path = found[:, 0].reshape(400, 6)
    assert np.abs(one_path.mean(axis=0) - 0.5).max() < 0.06
    assert np.abs(np.corrcoef(one_path.T) - np.eye(6)).max() < 0.15
    assert _stratified(np.full((1, 2, 8, 1, 2), 1 - 1e-17)).max() < 1


def test_it_is_registered_by_name() -> None:
    assert isinstance(get_model("Kronos"), Kronos)


def test_a_forecast_has_rising_finite_price_quantiles(trained: Checkpoint) -> None:
    windows = windows_of(PANEL)
    found = forecast(load(trained), windows)
    assert found.shape == (len(windows), HORIZON, len(DEFAULT_LEVELS))
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=-1) >= 0).all()
    assert (np.diff(found, axis=-1) > 0).any()
    assert np.abs(found / windows.last_close[:, None, None] - 1).max() < 0.5


def test_the_same_seed_gives_the_same_model_and_another_does_not(
    trained: Checkpoint, tmp_path: Path
) -> None:
    again = train(PANEL, config(), tmp_path / "again")
    other = train(PANEL, config(), tmp_path / "other", seed=1)
    first, second, third = (read_weights(c) for c in (trained, again, other))
    assert all(np.array_equal(first[k], second[k]) for k in first)
    windows = windows_of(PANEL)
    wanted = forecast(load(trained), windows)
    assert np.array_equal(wanted, forecast(load(again), windows))
    assert not np.array_equal(wanted, forecast(load(other), windows))
    assert first.keys() == third.keys()


def test_another_forecast_seed_draws_other_paths(trained: Checkpoint) -> None:
    predictor, windows = load(trained), windows_of(PANEL)
    assert not np.array_equal(forecast(predictor, windows), forecast(predictor, windows, seed=1))


def test_neither_batch_size_nor_order_changes_a_forecast(trained: Checkpoint) -> None:
    predictor, windows = load(trained), windows_of(PANEL)
    wanted = forecast(predictor, windows, first=40)
    np.testing.assert_allclose(forecast(predictor, windows, batch=7, first=40), wanted, rtol=1e-6)
    context = windows.context(predictor.context_length, slice(0, 40))
    turned = context.take(np.arange(40)[::-1])
    found = predictor.predict(turned, horizon=HORIZON, levels=DEFAULT_LEVELS, seed=0)
    np.testing.assert_allclose(found.values[::-1], wanted, rtol=1e-6)


def test_memory_bounds_the_windows_of_a_call_and_never_the_forecast(
    trained: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, windows = load(trained), windows_of(PANEL)
    wanted = forecast(predictor, windows, first=10)
    assert predictor._windows_at_once(HORIZON) > 1
    monkeypatch.setitem(ATTENTION_CELLS, "cpu", 1)
    assert predictor._windows_at_once(HORIZON) == 1
    np.testing.assert_allclose(forecast(predictor, windows, first=10), wanted, rtol=1e-6)


def test_paths_that_slide_take_fewer_windows_at_a_time() -> None:
    made = config(
        Facts(HORIZON, 512, 5000),
        size="base",
        context_length=500,
        **dict.fromkeys(SHAPE),
        num_samples=64,
    )
    for device, wanted in (("cuda", (5, 1)), ("cpu", (1, 1))):
        resources = Resources(device, inference_batch=64)
        predictor = KronosPredictor(Nets(None, None), made, resources)
        assert tuple(predictor._windows_at_once(h) for h in (12, 13)) == wanted


def scaled(factor: np.ndarray) -> Panel:
    """PANEL with every number of a row times the row's factor."""
    frame = make_frame(3, 300)
    return panel_from_frame(frame.with_columns(**{c: frame[c] * factor for c in frame.columns[2:]}))


def test_changing_the_future_moves_no_forecast(trained: Checkpoint) -> None:
    windows = windows_of(PANEL)
    origin = windows.part.origins[0]
    times = make_frame(3, 300)["timestamp"].to_numpy()
    changed = scaled(np.where(times > PANEL.timeline[origin], 1.7, 1.0))
    here = np.flatnonzero(windows.origin == 0)
    predictor = load(trained)

    def ask(panel: Panel) -> np.ndarray:
        context = windows_of(panel).context(predictor.context_length, here)
        return predictor.predict(context, horizon=HORIZON, levels=DEFAULT_LEVELS, seed=0).values

    assert np.array_equal(ask(PANEL), ask(changed))
    other = scaled(np.where(times == PANEL.timeline[origin], 1.01, 1.0))
    assert not np.array_equal(ask(PANEL), ask(other))


@pytest.mark.parametrize("target", ["return", "price"])
def test_prices_in_another_currency_give_the_same_forecast_in_it(
    target: str, tmp_path: Path
) -> None:
    predictor = load(train(PANEL, config(target=target), tmp_path / "one"))
    frame = make_frame(3, 300)
    prices = {c: frame[c] * 0.25 for c in ("open", "high", "low", "close")}
    cheap = windows_of(panel_from_frame(frame.with_columns(**prices)))
    wanted = forecast(predictor, windows_of(PANEL), first=40)
    np.testing.assert_allclose(forecast(predictor, cheap, first=40), wanted / 4, rtol=1e-9)


def test_short_contexts_are_forecast_as_if_alone(trained: Checkpoint) -> None:
    predictor, windows = load(trained), windows_of(PANEL)
    context = windows.context(20, slice(0, 4))
    wide = windows.context(32, slice(0, 4))
    wide.values[1:3, :12] = np.nan
    wide.timestamps[1:3, :12] = np.datetime64("NaT")
    wide.mask[1:3, :12] = False

    def ask(seen: object) -> np.ndarray:
        return predictor.predict(seen, horizon=2, levels=DEFAULT_LEVELS, seed=0).values

    np.testing.assert_allclose(ask(wide)[1:3], ask(context)[1:3], rtol=1e-6)
    two = windows.context(2, slice(0, 4))
    assert np.isfinite(ask(two)).all()
    with pytest.raises(ForecastError, match="1 bars before its origin"):
        ask(windows.context(1, slice(0, 4)))


def test_a_live_predictor_forecasts_in_eval_mode_and_puts_the_mode_back(
    trained: Checkpoint,
) -> None:
    predictor, windows = load(trained), windows_of(PANEL)
    wanted = forecast(predictor, windows, first=10)
    for block in predictor.nets.predictor.transformer:
        block.ffn.ffn_dropout.p = 0.9
    predictor.nets.predictor.train()
    assert np.array_equal(forecast(predictor, windows, first=10), wanted)
    assert predictor.nets.predictor.training
    assert not predictor.nets.tokenizer.training


def test_loading_and_forecasting_leave_torchs_random_state_alone(trained: Checkpoint) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    predictor = load(trained)
    forecast(predictor, windows_of(PANEL), first=4)
    assert torch.equal(torch.rand(3), wanted)


def test_both_stages_report_one_row_of_steps_and_only_the_second_is_scored(
    tmp_path: Path,
) -> None:
    split, notes = make_split(PANEL, Cut(HORIZON)), Notes()
    windows = TrainWindows(PANEL, split, split.part("train"))
    done = Kronos().train(TrainingJob(
        windows, config(max_steps=16, tokenizer_fraction=0.5), Resources(), seed=0,
        horizon=HORIZON, score=notes.score, report=notes.report, out=tmp_path / "one",
    ))  # fmt: skip
    assert notes.steps == sorted(set(notes.steps))
    assert notes.steps[-1] == 16
    assert notes.scored == 8
    assert done.card["tokenizer_steps"] == 8
    assert done.card["fitted"]["step"] == 16
    assert state_file(tmp_path / "one", 0).exists() == done.card["fitted"]["still_learning"]


def test_a_training_cut_short_in_its_second_stage_goes_on_to_the_same_weights(
    trained: Checkpoint, tmp_path: Path
) -> None:
    split, out, notes = make_split(PANEL, Cut(HORIZON)), tmp_path / "cut", Notes()
    windows = TrainWindows(PANEL, split, split.part("train"))

    class Broken(Exception):
        pass

    def stop(step: int, scores: object, losses: object = None) -> None:
        if step == 4:
            raise Broken

    def run(report: Callable[..., None], resume: Path | None) -> None:
        Kronos().train(TrainingJob(
            windows, config(), Resources(), seed=0, horizon=HORIZON, score=notes.score,
            report=report, out=out, resume=resume,
        ))  # fmt: skip

    with pytest.raises(Broken):
        run(stop, None)
    run(notes.report, out)
    wanted, found = (
        read_weights(c) for c in (trained, Checkpoint(out, "kronos", {}, trained.card))
    )
    assert all(np.array_equal(wanted[k], found[k]) for k in wanted)


def test_one_checkpoint_holds_both_nets(trained: Checkpoint) -> None:
    prefixes = {name.split(".")[0] for name in read_weights(trained)}
    assert prefixes == {"tokenizer", "predictor"}
    assert {p.name for p in trained.path.iterdir()} == {
        "card.json", "config.json", "model.safetensors",
    }  # fmt: skip


def test_a_checkpoint_of_another_model_is_refused(trained: Checkpoint) -> None:
    other = Checkpoint(trained.path, "toto", trained.config, trained.card)
    with pytest.raises(CheckpointError, match="of 'toto', not of kronos"):
        Kronos().load(other, Resources())


def test_importing_the_family_loads_no_torch() -> None:
    code = "import foresweep.models.kronos.model, sys; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
