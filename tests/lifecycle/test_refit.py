"""A refit trains the judged config on every bar, for as many steps, and says it is unjudged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.tables import write_table
from foresweep.data.windows import TrainWindows
from foresweep.errors import UsageError
from foresweep.lifecycle.champion import UNJUDGED
from foresweep.lifecycle.refit import refit
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.search.refitting import bars_before
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from panels import make_panel, walk_frame, weekdays
from shells import Shell


def test_all_bars_are_trained_on_and_none_is_left_over() -> None:
    panel = make_panel(2, 300)
    split = make_split(panel, Cut())
    before = TrainWindows(panel, split, split.part("train"))
    after = bars_before(panel, split, len(panel.timeline))
    assert len(before.values(0)) < 200
    assert len(after.values(0)) == 300
    item, row = after.starts(32, 5)
    assert row.max() + 37 == 300
    assert row[item == 0].min() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prices and a sweep of two tiny trainings over them, judged by hand."""
    folder = tmp_path_factory.mktemp("refit")
    for k, name in enumerate("AB"):
        write_table(
            folder / "prices" / f"{name}.csv",
            walk_frame(name, weekdays(400), seed=k).drop("item_id"),
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        from foresweep.cli.main import main

        with pytest.raises(SystemExit) as ended:
            main(
                ("train", "--model", "chronos2", "--data", "prices", "--max-steps", "6",
                 "--set", "context_length=64", "--set", "fit_scale=true")
            )  # fmt: skip
        assert not ended.value.code
    return folder


@pytest.fixture
def tracker(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    monkeypatch.chdir(place)
    with Tracker(place / "hyperparams" / "sweeps.db") as opened:
        yield opened


@pytest.mark.slow
def test_promote_refit_puts_new_weights_in_service_under_the_old_verdict(
    tracker: Tracker, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(capsys)
    (run,) = tracker.get_runs("chronos2")
    assert "has no verdict" in shell.error("promote", run.run_id, "--refit", code=2)
    assert len(tracker.get_runs("chronos2")) == 1  # nothing was trained for a refusal
    judging = tracker.judgings.begin([run.run_id])
    tracker.judgings.end(judging, {run.run_id: {"outcome": "promote"}})
    told = json.loads(shell("promote", run.run_id, "--refit", "--json"))
    assert UNJUDGED in told["notes"]
    entry = Service(tracker.store).slot("prices-h5").champion
    assert entry is not None
    assert entry.run_id != run.run_id
    assert (entry.content["judged_run_id"], entry.verdict_id) == (run.run_id, 1)
    fresh = tracker.get_run(entry.run_id)
    assert (fresh.source, fresh.sweep_id, fresh.fingerprint) == (f"refit: {run.run_id}", None, "")
    before, after = (read_checkpoint(Path(str(r.checkpoint_path))) for r in (run, fresh))
    assert after.card["fitted"]["step"] == before.card["fitted"]["step"]
    assert after.card["refit_of"] == run.run_id
    assert after.card["tuned_until"] == str(weekdays(400)[-1].astype("datetime64[s]"))
    assert after.card["files"]["calibration.json"] == before.card["files"]["calibration.json"]
    ours, theirs = read_weights(after), read_weights(before)
    assert any(not np.array_equal(ours[name], theirs[name]) for name in ours)
    out = json.loads(shell("predict", "--data", "prices", "--json", "--no-record"))
    assert {row["item_id"] for row in out} == {"A", "B"}


@pytest.mark.slow
def test_a_refit_on_newer_bars_trains_on_them(tracker: Tracker, tmp_path: Path) -> None:
    run = next(r for r in tracker.get_runs("chronos2") if r.sweep_id)
    for k, name in enumerate("AB"):
        longer = walk_frame(name, weekdays(450), seed=k).drop("item_id")
        write_table(tmp_path / f"{name}.csv", longer)
    newer = load_panel(tmp_path).panel
    done = refit(tracker, run, Path("hyperparams/runs"), panel=newer)
    assert done.until == str(weekdays(450)[-1].astype("datetime64[s]"))
    assert done.num_bars == 900


def test_an_ensemble_is_not_refit(tmp_path: Path) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        logged = tracker.start_run(model="ensemble", hyperparams={})
        with pytest.raises(UsageError, match="has no weights of its own"):
            refit(tracker, logged, tmp_path)
