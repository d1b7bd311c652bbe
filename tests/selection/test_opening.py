"""Test is forecast when it is opened, and is then what it would have been at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.data.splits import Cut
from foresweep.errors import CheckpointError, PanelChanged, UsageError
from foresweep.evaluation.backtest import evaluate
from foresweep.evaluation.losses import LossPanel, load_losses
from foresweep.models.base import Resources
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.registry import get_model
from foresweep.records import Run
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.stage import reopen
from foresweep.search.sweep import train
from foresweep.selection.sealed import _require_going_on, open_test, reveal
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from panels import sine_panel, weekdays
from planted_model import plugin

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("opening")]

SEASONED = """from foresweep.models.baselines.naive import SeasonalNaive


class Guest(SeasonalNaive):
    name = "guest"
"""
PLAN = SweepPlan(models=("guest",), cut=Cut(stride=8, max_context=64))


@dataclass
class Place:
    folder: Path
    run: Run

    def tracker(self) -> Tracker:
        return Tracker(self.folder / "sweeps.db")

    def complete(self) -> list[Run]:
        with self.tracker() as tracker:
            return tracker.get_runs(state="complete")

    def test_files(self) -> list[Path]:
        return sorted((self.folder / "runs").glob("*/test/*"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A model that knows the period of the sines it is asked about: no gate holds it."""
    folder = tmp_path_factory.mktemp("opening")
    with plugin(tmp_path_factory.mktemp("guest"), module=SEASONED):
        sine_panel(1700).to_frame().write_csv(folder / "sines.csv")
        plan = by_hand(replace(PLAN, data=str(folder / "sines.csv")), {"season_length": 32})
        run = train(plan, plan.proposals[0].config, db=folder / "sweeps.db", runs=folder / "runs")
        yield Place(folder, run)


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Iterator[Place]:
    """As it was before anything was opened: paths on record are absolute."""
    shutil.copytree(made.folder, tmp_path / "kept")
    yield made
    shutil.rmtree(made.folder)
    shutil.copytree(tmp_path / "kept", made.folder)


def scored_at_once(place: Place, run: Run, out: Path) -> dict[str, float]:
    """Test as a trial would have scored it, by a way of its own."""
    with place.tracker() as tracker:
        panel, split = reopen(tracker.get_sweep(run.sweep_id), place.folder / "runs")
    checkpoint = read_checkpoint(Path(str(run.checkpoint_path)))
    predictor = load_predictor(get_model(checkpoint.model), checkpoint, Resources())
    return evaluate(predictor, panel, split, parts=("test",), seed=run.seed or 0, out=out)


def judged(place: Place) -> str:
    with place.tracker() as tracker:
        (found,) = verdict_on_runs(tracker, [place.run.run_id])
    assert found.look_number == 1
    return json.dumps(asdict(found), default=str)


def test_nothing_of_test_is_there_before_somebody_asks(made: Place) -> None:
    assert made.test_files() == []
    with made.tracker() as tracker:
        assert not any(tracker.judgings.has_test(run.run_id) for run in made.complete())


def test_a_run_without_test_files_gets_the_verdict_of_one_scored_at_once(
    place: Place, tmp_path: Path
) -> None:
    unmade = judged(place)
    first = {p: p.read_bytes() for p in place.test_files()}
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "kept", place.folder)
    for run in place.complete():
        scored_at_once(place, run, Path(str(run.forecasts_path)))
    assert judged(place) == unmade
    for path, content in first.items():  # of the candidate and the baselines it is held against
        assert path.read_bytes() == content
    assert any(place.run.run_id in str(p) for p in first)


def test_what_was_opened_is_on_record_and_not_forecast_again(place: Place) -> None:
    with place.tracker() as tracker:
        scores = reveal(tracker, place.run, why="a test")
        assert scores == scored_at_once(place, place.run, place.folder / "aside")
        shutil.rmtree(Path(str(place.run.checkpoint_path)))
        assert reveal(tracker, place.run, why="a test") == scores
        looks = tracker.judgings.test_looks(place.run.run_id)
    assert [look["why"] for look in looks] == ["a test", "a test"]


def test_a_look_that_nothing_can_come_of_is_not_recorded(place: Place) -> None:
    for path in (place.folder / "runs" / "panels").glob("*.npz"):
        path.unlink()
    (place.folder / "sines.csv").unlink()
    with place.tracker() as tracker:
        judging = tracker.judgings.begin([place.run.run_id])
        for ask in (
            lambda: reveal(tracker, place.run, why="a test"),
            lambda: open_test(tracker, judging, [place.run], [], who=""),
        ):
            with pytest.raises(CheckpointError, match="has not been forecast yet"):
                ask()
        assert tracker.judgings.test_looks() == []


def test_an_altered_checkpoint_opens_nothing(place: Place) -> None:
    config = Path(str(place.run.checkpoint_path)) / "config.json"
    config.write_text(config.read_text().replace("32", "31"))
    with place.tracker() as tracker, pytest.raises(CheckpointError):
        reveal(tracker, place.run, why="a test")
    assert place.test_files() == []


def test_losses_of_the_opened_test_are_of_the_windows_on_record(place: Place) -> None:
    with place.tracker() as tracker:
        judging = tracker.judgings.begin([place.run.run_id])
        _, panels, _ = open_test(tracker, judging, [place.run], [], who="ann")
    panel = panels[place.run.run_id]
    assert panel.fingerprint == place.run.fingerprints["test"]
    stored = load_losses(Path(str(place.run.forecasts_path)) / "test" / "losses.npz")
    np.testing.assert_array_equal(panel.losses["pct_mae"], stored.losses["pct_mae"])


def grow(place: Place, *, bars: int = 96, spoil: bool = False) -> None:
    """Newer bars in the sweep's source: the sines go on for three periods."""
    path = place.folder / "sines.csv"
    old = pl.read_csv(path, try_parse_dates=True)
    pieces = [old]
    for frame in old.partition_by("item_id"):
        days = weekdays(len(frame) + bars)[len(frame) :]
        newer = frame.tail(bars).with_columns(pl.Series("timestamp", days, dtype=pl.Date))
        pieces.append(newer.cast(dict(frame.schema)))  # type: ignore[arg-type]
    every = pl.concat(pieces)
    if spoil:
        first = pl.int_range(pl.len()).over("item_id") == 900
        every = every.with_columns(pl.when(first).then(pl.col("close") * 1.01).otherwise("close"))
    every.write_csv(path)


def test_a_growing_test_goes_on_with_what_came_and_is_one_look_for_ever(place: Place) -> None:
    with place.tracker() as tracker:
        (first,) = verdict_on_runs(tracker, [place.run.run_id], growing=True)
        grow(place)
        (later,) = verdict_on_runs(tracker, [place.run.run_id])  # it grows whoever asks
        looks = tracker.judgings.test_looks(place.run.run_id)
    assert (first.growing, later.growing) == (True, True)
    counts = [v.against[0].test_origins for v in (first, later)]
    assert counts == [first.num_origins["test"], first.num_origins["test"] + 96 // 8]
    assert (first.look_number, later.look_number) == (1, 1)
    assert first.test_level == later.test_level == 0.05
    assert all(str(look["why"]).endswith("to be read for ever") for look in looks)
    assert "12 of them after the sweep's own" in " ".join(later.notes)
    before, after = (v.against[0].test_pvalue for v in (first, later))
    assert before is not None
    assert after is not None
    assert after <= before  # what was found stays found


def test_a_test_that_was_opened_to_end_cannot_be_made_to_grow(place: Place) -> None:
    with place.tracker() as tracker:
        (found,) = verdict_on_runs(tracker, [place.run.run_id])
        assert not found.growing
        with pytest.raises(UsageError, match="was opened as one that ends"):
            verdict_on_runs(tracker, [place.run.run_id], growing=True)


def test_a_growing_test_does_not_go_on_over_bars_that_changed(place: Place) -> None:
    with place.tracker() as tracker:
        verdict_on_runs(tracker, [place.run.run_id], growing=True)
        grow(place, spoil=True)
        with pytest.raises(PanelChanged, match="the test cannot go on from there"):
            verdict_on_runs(tracker, [place.run.run_id])


def test_a_grown_test_has_to_begin_with_the_tests_own_losses_of_the_same_items() -> None:
    def panel(losses: list[list[float]], items: str) -> LossPanel:
        lead = np.array(losses)[:, :, None]
        days = np.datetime64("2024-01-01", "ns") + np.arange(len(losses)).astype("timedelta64[D]")
        ones = np.ones(lead.shape[:2])
        return LossPanel({"mae": lead[:, :, 0]}, {"mae": lead}, ones, days, tuple(items), 1, "f")

    own, more = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    _require_going_on("r1", panel(own, "AB"), panel(more, "AB"))
    later = replace(panel(more, "AB"), origins=panel(more, "AB").origins + np.timedelta64(1, "D"))
    for grown in (panel(more, "AC"), panel([[1.1, 2.0], *more[1:]], "AB"), later):
        with pytest.raises(CheckpointError, match="test of run r1 was forecast anew"):
            _require_going_on("r1", panel(own, "AB"), grown)
