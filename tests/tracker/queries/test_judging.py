"""Lineage, judgings and looks: what counts together, and what starts nothing anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from foresweep.data.footprint import written
from foresweep.errors import TrackerError
from foresweep.records import MOVES, Run, Sweep
from foresweep.tracker.hiding import hide_run
from foresweep.tracker.sealed import footprint
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

ITEMS = ["AAPL", "GOOG", "IBM", "MSFT"]


MOVED = {MOVES: written(np.array([7, 11, 2**63 + 1], dtype=np.uint64))}
"""Moves that every sweep here has seen, unless it is said to have seen others."""


def plan(
    items: list[str] | None = None,
    *,
    val: str = "2012-01-03",
    last: str = "2013-03-01",
    tune: str | None = None,
) -> dict[str, Any]:
    """A plan's record whose val begins at `val` and whose test ends at `last`."""
    parts = {} if tune is None else {"tune": {"from": f"{tune}T00:00:00", "to": f"{val}T00:00:00"}}
    parts |= {
        "train": {"from": "2004-08-19T00:00:00", "to": "2011-12-20T00:00:00"},
        "val": {"from": f"{val}T00:00:00", "to": "2012-08-01T00:00:00"},
        "test": {"from": "2012-08-10T00:00:00", "to": f"{last}T00:00:00"},
    }
    return {"parts": parts, "items": ITEMS if items is None else items}


def add(
    tracker: Tracker, name: str, record: dict[str, Any] | None = None, *, horizon: int = 5
) -> tuple[Sweep, Run]:
    """A sweep whose fingerprints carry `name`, with one complete trial."""
    cells = {part: f"{part}-{name}" for part in ("tune", "val", "test")}
    sweep = make_sweep(
        tracker, plan=plan() if record is None else record, fingerprints=cells, horizon=horizon
    )
    return sweep, add_trial(tracker, sweep)


def add_trial(tracker: Tracker, sweep: Sweep, state: str = "complete", **started: Any) -> Run:
    trial = tracker.heads.add_trial(
        sweep.sweep_id, model="toto", config={}, config_hash="c", train_hash="t", source="s"
    )
    run = tracker.start_run(
        model=started.pop("model", "toto"),
        hyperparams={},
        sweep_id=sweep.sweep_id,
        trial_number=trial.number,
        fingerprints=sweep.fingerprints,
        **started,
    )
    return tracker.finish_run(run.run_id, state, scores={"val_pct_mae": 1.0, "test_pct_mae": 2.0})


OTHER_CUTS = {
    "one more bar": plan(last="2013-03-04"),
    "one ticker less": plan(ITEMS[1:]),
    "H=4 after H=5": plan(val="2012-01-02"),
    "val where test was": plan(val="2013-02-28", last="2014-01-02"),
    "items not on record": {"parts": plan()["parts"]},
    "renamed items on shifted days": plan(["s0", "s1"], val="2032-01-02", last="2033-01-02")
    | MOVED,
    "tune where test was": plan(val="2014-01-03", last="2015-01-02", tune="2013-01-03"),
}


@pytest.mark.parametrize("record", OTHER_CUTS.values(), ids=OTHER_CUTS)
def test_another_cut_of_the_same_prices_resets_no_count(
    tracker: Tracker, record: dict[str, Any]
) -> None:
    first, run = add(tracker, "first", plan() | MOVED)
    judging = tracker.judgings.begin([run.run_id])
    tracker.judgings.record_look(judging, [run.run_id], why="verdict")
    second, other = add(tracker, "second", record, horizon=4)
    again = tracker.judgings.begin([other.run_id])
    assert set(again.lineage.sweep_ids) == {first.sweep_id, second.sweep_id}
    assert (again.number, again.next_look, again.lineage.num_trials) == (2, 2, 2)


STRANGERS = {
    "other items": plan(["SPY", "QQQ"]),
    "a later period": plan(val="2013-03-02", last="2014-03-01")
    | {
        "parts": {
            "val": {"from": "2013-03-02T00:00:00", "to": "2013-09-01T00:00:00"},
            "test": {"from": "2013-09-10T00:00:00", "to": "2014-03-01T00:00:00"},
        }
    },
    "recorded by hand": {"max_runs": 3},
}


@pytest.mark.parametrize("record", STRANGERS.values(), ids=STRANGERS)
def test_other_items_or_a_fresh_period_begin_anew(tracker: Tracker, record: dict[str, Any]) -> None:
    _, run = add(tracker, "first")
    judging = tracker.judgings.begin([run.run_id])
    tracker.judgings.record_look(judging, [run.run_id], why="verdict")
    second, other = add(tracker, "second", record)
    again = tracker.judgings.begin([other.run_id])
    assert again.lineage.sweep_ids == (second.sweep_id,)
    assert (again.number, again.next_look) == (1, 1)


def test_failed_pruned_hidden_and_earlier_trials_count_and_baselines_do_not(
    tracker: Tracker,
) -> None:
    sweep, _ = add(tracker, "one")
    for state in ("failed", "pruned", "complete"):
        hide_run(tracker, add_trial(tracker, sweep, state).run_id)
    add_trial(tracker, sweep, model="last-value", is_baseline=True)
    add(tracker, "two")
    found = tracker.judgings.lineage([sweep.sweep_id])
    assert (found.num_trials, found.num_complete) == (5, 3)


def test_lineage_counts_direct_meetings_only(tracker: Tracker) -> None:
    left, _ = add(tracker, "left", plan(["A", "B"]))
    middle, _ = add(tracker, "middle", plan(["B", "C"]))
    right, _ = add(tracker, "right", plan(["C", "D"]))
    found = tracker.judgings.lineage([left.sweep_id]).sweep_ids
    assert found == (left.sweep_id, middle.sweep_id)
    assert tracker.judgings.lineage([middle.sweep_id]).sweep_ids[-1] == right.sweep_id


def test_to_read_ones_own_result_again_is_no_look(tracker: Tracker) -> None:
    sweep, first = add(tracker, "one")
    second = add_trial(tracker, sweep)

    def look(run: Run) -> int:
        return tracker.judgings.record_look(
            tracker.judgings.begin([run.run_id]), [run.run_id], why="verdict"
        )

    assert [look(first), look(second), look(first), look(second)] == [1, 2, 1, 2]
    assert [row["number"] for row in tracker.judgings.test_looks()] == [1, 2, 1, 2]


def test_tests_looked_at_by_hand_count_before_a_verdict_chooses_among_them(
    tracker: Tracker,
) -> None:
    sweep, first = add(tracker, "one")
    runs = [first, *(add_trial(tracker, sweep) for _ in range(4))]
    for run in runs:
        tracker.reveal_test(run.run_id, why="curious")
    judging = tracker.judgings.begin([first.run_id])
    assert judging.next_look == 5
    assert tracker.judgings.record_look(judging, [first.run_id], why="verdict") == 5


def test_horizons_of_one_command_share_their_numbers(tracker: Tracker) -> None:
    _, earlier = add(tracker, "earlier")
    tracker.judgings.record_look(
        tracker.judgings.begin([earlier.run_id]), [earlier.run_id], why="verdict"
    )
    runs = [add(tracker, f"h{h}", horizon=h)[1].run_id for h in (1, 5, 20)]
    together = tracker.judgings.begin(runs)
    assert (together.number, together.next_look) == (2, 2)
    assert tracker.judgings.record_look(together, runs, why="verdict") == 2
    _, later = add(tracker, "later")
    after = tracker.judgings.begin([later.run_id])
    assert (after.number, after.next_look) == (3, 3)


def test_a_fingerprint_judged_before_keeps_its_number(tracker: Tracker) -> None:
    sweep, first = add(tracker, "one")
    _, other = add(tracker, "two")
    numbers = [
        tracker.judgings.begin([run.run_id]).number
        for run in (first, other, first, add_trial(tracker, sweep))
    ]
    assert numbers == [1, 2, 1, 1]


def test_a_judging_counts_though_it_was_never_ended(tracker: Tracker) -> None:
    _, run = add(tracker, "one")
    tracker.judgings.begin([run.run_id], who="ann")
    (row,) = tracker.judgings.verdicts()
    assert (row["outcome"], row["who"]) == ("", "ann")
    assert tracker.judgings.begin([add(tracker, "two")[1].run_id]).number == 2


def test_a_verdict_is_kept(tracker: Tracker) -> None:
    _, run = add(tracker, "one")
    judging = tracker.judgings.begin([run.run_id])
    tracker.judgings.end(judging, {run.run_id: {"outcome": "hold", "numbers": {"p": 0.2}}})
    (row,) = tracker.judgings.verdicts(run.run_id)
    assert (row["outcome"], row["content"]["numbers"]) == ("hold", {"p": 0.2})


def test_a_run_logged_by_hand_is_sent_to_the_file_door(
    tracker: Tracker, finished: Callable[..., Run]
) -> None:
    run = finished("toto", {"val_pct_mae": 1.0})
    with pytest.raises(TrackerError, match="--losses FILE"):
        tracker.judgings.begin([run.run_id])
    assert tracker.judgings.verdicts() == []


def test_a_plan_without_parts_has_no_footprint() -> None:
    assert footprint({"max_runs": 3}) is None


def test_every_seed_of_a_config_is_a_trial(tracker: Tracker) -> None:
    sweep, run = add(tracker, "one")
    for seed in (1, 2, 2):  # the last once more, after it broke off
        more = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=sweep.sweep_id, trial_number=run.trial_number,
            fingerprints=sweep.fingerprints, seed=seed,
        )  # fmt: skip
        tracker.finish_run(more.run_id, "failed" if seed == 2 else "complete")
    lineage = tracker.judgings.lineage([sweep.sweep_id])
    assert (lineage.num_trials, lineage.num_complete) == (3, 2)


def test_other_items_over_common_days_are_told_and_not_counted(tracker: Tracker) -> None:
    first, _ = add(tracker, "first", plan() | MOVED)
    others = {MOVES: written(np.array([7, 12, 13], dtype=np.uint64))}  # one hash is an accident
    add(tracker, "second", plan(["ORCL"]) | others)
    add(tracker, "third", STRANGERS["a later period"] | {"items": ["ORCL"]})
    lineage = tracker.judgings.lineage([first.sweep_id])
    assert (lineage.sweep_ids, lineage.num_trials, lineage.num_beside) == ((first.sweep_id,), 1, 1)
