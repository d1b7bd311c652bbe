"""The calls of a notebook: plain keywords and DataFrames."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from tests.panels import make_frame

import foresweep as fs
from foresweep.data.reading.frames import keep_frame
from foresweep.data.reading.sources import load_panel
from foresweep.errors import DataError, UsageError
from foresweep.lifecycle.champion import promote
from foresweep.search.events import Event, SweepFinished
from foresweep.tracker.storage.verifying import verify
from foresweep.tracker.tracker import Tracker


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> fs.SweepResult:
    folder = tmp_path_factory.mktemp("face")
    frame = make_frame(num_items=3, num_bars=400).to_pandas()
    return fs.sweep(
        ["last-value", "drift"], frame, horizon=3, db=folder / "s.db", runs=folder / "runs"
    )


def test_a_sweep_of_a_frame_is_its_record_and_answers_as_one(swept: fs.SweepResult) -> None:
    assert isinstance(swept, fs.Sweep)
    assert (swept.state, swept.horizon) == ("complete", 3)
    board = swept.leaderboard()
    assert isinstance(board, pd.DataFrame)
    assert board["place"].dropna().is_monotonic_increasing
    assert {"last-value", "drift"} <= set(board["model"])
    assert (board.loc[board["model"] == "last-value", "skill_vs_last_value"] == 0).all()
    assert len(swept.runs()) == len(board)


def test_a_whole_sweep_leaves_a_record_that_is_as_it_was_written(swept: fs.SweepResult) -> None:
    with Tracker(swept.places.database) as tracker, tracker.store.read() as connection:
        assert verify(connection).problems == ()


def test_a_leaderboard_shows_no_test_score(swept: fs.SweepResult) -> None:
    assert not [c for c in swept.leaderboard().columns if "test" in c]
    with pytest.raises(UsageError, match="test"):
        swept.leaderboard("test_pct_mae")


def test_baselines_alone_have_no_best_trained_run(swept: fs.SweepResult) -> None:
    with pytest.raises(fs.ForesweepError, match="no trained run"):
        swept.best()


def test_a_sweep_of_a_frame_can_be_gone_on_with_by_another_process(swept: fs.SweepResult) -> None:
    assert Path(swept.plan["asked"]["data"]).is_file()
    db, runs = swept.places.database, swept.places.runs_dir
    heard: list[Event] = []
    again = fs.resume(swept.sweep_id, db=db, runs=runs, listen=heard.append)
    assert again.sweep_id == swept.sweep_id
    assert isinstance(heard[-1], SweepFinished)


def test_the_report_is_written_as_its_name_says(swept: fs.SweepResult, tmp_path: Path) -> None:
    assert swept.report(tmp_path / "r.md").read_text().startswith("#")
    assert "<html" in swept.report(tmp_path / "r.html").read_text()[:300]
    with pytest.raises(UsageError, match="a name that ends in"):
        swept.report(tmp_path / "r.pdf")


def test_a_size_beside_weights_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(UsageError, match="the weights fix the size"):
        fs.sweep("toto", "demo", size="tiny", pretrained="published")


@pytest.mark.parametrize("make", [pl.DataFrame.to_pandas, pl.DataFrame.clone], ids=["pd", "pl"])
def test_a_kept_frame_reads_as_the_frame_itself(make: object, tmp_path: Path) -> None:
    frame = make(make_frame(num_items=2, num_bars=120))  # type: ignore[operator]
    kept = keep_frame(frame, tmp_path)
    assert load_panel(kept).panel.hash == load_panel(frame).panel.hash
    assert keep_frame(frame, tmp_path) == kept


def test_a_dict_of_frames_is_kept_as_one_file_with_its_items(tmp_path: Path) -> None:
    long = make_frame(num_items=2, num_bars=120)
    frames = {
        str(k[0]): f.drop("item_id") for k, f in long.partition_by("item_id", as_dict=True).items()
    }
    kept = load_panel(keep_frame(frames, tmp_path)).panel
    assert kept.hash == load_panel(frames).panel.hash
    assert set(kept.items) == set(frames)


def test_a_frame_of_one_item_needs_no_item_column(tmp_path: Path) -> None:
    one = make_frame(num_items=1, num_bars=120).drop("item_id")
    assert load_panel(one).panel.items == ("item",)
    assert load_panel(keep_frame(one, tmp_path)).panel.hash == load_panel(one).panel.hash


def test_several_items_without_a_name_are_refused() -> None:
    with pytest.raises(DataError, match="several rows at one time and no column item_id"):
        load_panel(make_frame(num_items=2, num_bars=120).drop("item_id"))


def test_the_demo_as_a_frame_is_the_demo() -> None:
    frame = fs.demo()
    assert list(frame.columns[:2]) == ["item_id", "timestamp"]
    assert load_panel(frame).panel.hash == load_panel("demo").panel.hash


def test_a_run_a_folder_and_a_champion_load_to_what_forecasts(swept: fs.SweepResult) -> None:
    frame = make_frame(num_items=2, num_bars=300)
    places = {"db": swept.places.database}
    run = next(r for r in swept.runs() if r.model_name == "drift")
    told = fs.load(run, **places).predict(frame, levels=(0.1, 0.5, 0.9))
    assert "predictor" not in repr(fs.load(run, **places))  # not a page of layers in a notebook
    assert list(told.columns[:6]) == ["item_id", "timestamp", "predictions", "0.1", "0.5", "0.9"]
    assert (told["predictions"] == told["0.5"]).all()
    assert len(told) == 2 * 3
    assert (
        told.groupby("item_id")["timestamp"].min() > told.groupby("item_id")["origin"].max()
    ).all()
    for same in (run.run_id, Path(str(run.checkpoint_path))):
        again = fs.load(same, **places).predict(frame, levels=(0.1, 0.5, 0.9))
        pd.testing.assert_frame_equal(again, told)
    with Tracker(swept.places.database) as tracker:
        promote(tracker, run.run_id, slot="mine", force_reason="to see it served")
    served = fs.load("mine", **places).predict(frame, levels=(0.1, 0.5, 0.9))
    pd.testing.assert_frame_equal(served, told)


def test_a_sweep_prints_as_a_sentence(swept: fs.SweepResult) -> None:
    assert str(swept) == (
        f"Sweep {swept.sweep_id} of last-value, drift, complete: no trained run has a score."
    )


def test_tab_shows_the_face_and_nothing_else() -> None:
    assert set(fs.__all__) < set(dir(fs))
    assert not [n for n in dir(fs) if n.startswith("_") and not n.startswith("__")]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"objective": lambda run: 0.0}, "give the name of a metric"),
        ({"objective": "mae"}, "did you mean 'pct_mae'"),
        ({"hyperparams": {"lr": (1e-4, 1e-3)}}, "write a range as '1e-5..1e-3:log'"),
        ({"hyperparams": {"learning_rate": 1e-3}}, "did you mean 'lr'"),
    ],
)
def test_habits_of_other_programs_are_told_what_is_said_here(
    asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(fs.ForesweepError, match=re.escape(why)):
        fs.sweep("chronos2", "demo", max_runs=1, **asked)
