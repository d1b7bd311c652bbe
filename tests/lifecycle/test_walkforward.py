"""The procedure walks through time: each fold knows its past alone, and a broken walk goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut
from foresweep.errors import NotEnoughData, UsageError
from foresweep.lifecycle import walkforward as walks
from foresweep.lifecycle.walkforward import Fold, Walk, ends_of, live_windows, walkforward
from foresweep.records import is_aside
from foresweep.search.plan import SweepPlan
from foresweep.tracker.tracker import Tracker
from panels import make_frame, make_panel

PLAN = SweepPlan(
    models=("chronos2",),
    mode="random",
    cut=Cut(horizon=1, stride=5, max_context=64),
    max_runs=1,
    max_steps=2,
)
FOLDS, LIVE = 2, 60


@pytest.fixture(scope="module")
def panel() -> Panel:
    return make_panel(num_bars=700)


def walked(folder: Path, panel: Panel, tracker: Tracker) -> tuple[Walk, list[Fold]]:
    told: list[Fold] = []
    done = walkforward(
        PLAN, panel, folds=FOLDS, live_bars=LIVE, tracker=tracker, runs_dir=folder / "runs",
        listen=lambda _: None, told=told.append,
    )  # fmt: skip
    return done, told


@pytest.mark.slow
def test_folds_follow_each_other_and_a_broken_walk_goes_on(
    tmp_path: Path, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        real = walks._lived

        def breaks(*asked: object) -> Fold:
            if asked[5][0] == 2:  # type: ignore[index]
                raise KeyboardInterrupt
            return real(*asked)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(walks, "_lived", breaks)
            with pytest.raises(KeyboardInterrupt):
                walked(tmp_path, panel, tracker)
        sweeps = len(tracker.list_sweeps())
        ahead = walks.cost_of(
            PLAN, panel, FOLDS, LIVE, tracker=tracker, runs_dir=tmp_path / "runs",
            listen=lambda _: None,
        )  # fmt: skip
        assert (ahead.done, ahead.left, ahead.trials) == (1, 1, 1)  # the fold that broke off
        assert ahead.seconds > 0
        done, told = walked(tmp_path, panel, tracker)
        assert len(tracker.list_sweeps()) == sweeps == FOLDS  # none was swept twice
        assert all(is_aside(sweep.plan) for sweep in tracker.list_sweeps())  # no one's latest
        first, second = done.folds
        assert told == [first, second]
        assert first.live_until == second.known_until
        assert first.num_origins == second.num_origins == LIVE
        # two steps promote nothing: in service is the benchmark, as where nobody ever promotes
        assert {first.outcome, second.outcome} <= {"hold", "naive wins"}
        assert first.in_service == first.benchmark
        assert first.losses["procedure"] == first.losses["never promote"]
        assert done.skill_never == 0
        closes = np.array([b.values[-LIVE - 1 :, 3] for b in panel.bars])
        naive = 100 * np.abs(np.diff(closes)) / closes[:, :-1]
        assert second.losses["last-value"] == pytest.approx(naive.mean(), rel=1e-12)
        assert json.loads(json.dumps(done.as_json()))["folds"][0]["sweep_id"] == first.sweep_id
        # the sweeps' own data end where their fold's knowledge ends
        for fold in done.folds:
            plan = tracker.get_sweep(fold.sweep_id).plan
            assert plan["parts"]["test"]["to"] <= fold.known_until


def test_what_the_gate_made_of_the_prices_is_made_once(tmp_path: Path) -> None:
    """A split of the actions file is adjusted for when the walk begins and not again by its sweeps,
    and a move that it calls real is let pass by them, too."""
    frame, rest = make_frame(2, 400), [pl.col(c) for c in ("open", "high", "low", "close")]
    day = frame["timestamp"][200]
    late = (pl.col("timestamp") >= day) & (pl.col("item_id") == "A0")
    fell = (pl.col("timestamp") >= day) & (pl.col("item_id") == "A1")
    frame = frame.with_columns(
        pl.when(late).then(price / 2).when(fell).then(price / 3).otherwise(price) for price in rest
    )
    lines = [f"A0,{str(day)[:10]},2", f"A1,{str(day)[:10]},1"]
    actions = tmp_path / "actions.csv"
    actions.write_text("\n".join(["item,date,ratio", *lines]))
    panel = load_panel(frame, actions=actions).panel
    assert panel.items == ("A0", "A1")
    path, beside = walks._kept(panel, tmp_path / "kept")
    again = load_panel(path, actions=beside).panel
    assert again.hash == panel.hash
    twice = load_panel(path, actions=actions).panel  # as it was: the item is dropped
    assert twice.items == ("A1",)


def test_live_windows_begin_after_what_is_known_and_see_nothing_of_it_ahead(panel: Panel) -> None:
    end = ends_of(panel, PLAN, FOLDS, LIVE)[0]
    windows = live_windows(walks._until(panel, end + LIVE), PLAN, end)
    first, last = windows.label_span
    assert int(first.min()) == end + 1
    assert int(last.max()) == end + LIVE
    assert len(windows.part.origins) == LIVE  # those whose labels have come, and no other
    assert windows.split.part("train").stop < end


def test_too_many_folds_are_refused_before_anything_runs(panel: Panel) -> None:
    with pytest.raises(NotEnoughData, match="use fewer folds or shorter periods"):
        ends_of(panel, PLAN, 20, LIVE)
    with pytest.raises(UsageError, match="at least 1 fold"):
        ends_of(panel, PLAN, 2, 1)
