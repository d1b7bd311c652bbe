"""Whoever changes, removes or inserts a row of the past is told by name; the tracker's own later
words (notes, tags, scores, a removal) break nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from foresweep.records import Run
from foresweep.tracker.hiding import hide_run, show_run_again
from foresweep.tracker.service import PROMOTE, ROLLBACK, SHADOW, Service
from foresweep.tracker.storage.chain import origin
from foresweep.tracker.storage.moving import copy_database
from foresweep.tracker.storage.verifying import Verified, verify
from foresweep.tracker.tracker import NewRun, Tracker
from tracker_data import make_sweep

Finished = Callable[..., Run]


def walked(tracker: Tracker, holds: str | None = None) -> Verified:
    with tracker.store.read() as connection:
        return verify(connection, holds=holds)


def told(tracker: Tracker) -> set[tuple[str, str]]:
    return {(problem.what, problem.kind) for problem in walked(tracker).problems}


def tamper(tracker: Tracker, *statements: str) -> None:
    with tracker.store.write() as connection:
        for sql in statements:
            connection.execute(text(sql))


@pytest.fixture
def lived(tracker: Tracker, finished: Finished) -> Tracker:
    """A database in which everything that is chained has happened, some of it twice."""
    sweep = make_sweep(tracker)
    tracker.heads.say(sweep.sweep_id, workers=2)
    for n, state in enumerate(("complete", "pruned", "failed"), 1):
        trial = tracker.heads.add_trial(
            sweep.sweep_id,
            model="toto",
            config={"lr": n / 7, "é": None},
            config_hash=f"c{n}",
            train_hash="t",
            source="s",
        )
        scores = {"val_pct_mae": 0.1 + 0.2, "tune_pct_mae": -0.0, "test_mae": 1e-300}
        run = finished(
            "toto",
            scores,
            sweep=sweep,
            state=state,
            trial_number=trial.number,
            hyperparams=trial.config,
            seed=2**62,
        )
    best = tracker.get_runs(state="complete")[0]
    tracker.heads.reopen(sweep.sweep_id, {"max_runs": 9})
    tracker.log_run("kronos", {"x": [1, {"y": "z"}]}, {"val_r2": -1e308, "odd": float("nan")})
    tracker.log_runs([NewRun("toto", {"n": n}, {"val_r2": float(n)}) for n in range(3)])
    tracker.log_runs([NewRun("toto", {}, {})])
    tracker.start_run(model="toto", hyperparams={})
    judging = tracker.judgings.begin([best.run_id])
    tracker.judgings.record_look(judging, [best.run_id], why="gate 4")
    tracker.judgings.end(judging, {best.run_id: {"outcome": "hold", "p": 0.1 + 0.2}})
    tracker.reveal_test(best.run_id, why="curious")
    tracker.add_note(best.run_id, "a word")
    tracker.add_tag(best.run_id, "paper")
    tracker.add_scores(best.run_id, {"val_sharpe": 0.3, "test_sharpe": 0.4})
    tracker.add_scores(best.run_id, {"val_later": float("nan")})
    hide_run(tracker, run.run_id, forget_files=True)
    hide_run(tracker, best.run_id)
    show_run_again(tracker, best.run_id)
    tracker.finish_sweep(sweep.sweep_id, "complete")
    service = Service(tracker.store)
    for k in range(2):
        service.change(
            "s", PROMOTE, run_id=best.run_id, manifest=f"m{k}", reason="why", verdict_id=k
        )
    service.change("s", SHADOW, run_id=best.run_id, manifest="m2", content={"x": 0.1 + 0.2})
    service.change("s", ROLLBACK)
    return tracker


def test_what_the_tracker_itself_did_is_sound(lived: Tracker) -> None:
    found = walked(lived)
    assert found.problems == ()
    assert (found.before, found.is_sound) == ({}, True)
    assert found.num_entries == 28


def test_a_lost_run_that_was_given_scores_and_still_finished_is_sound(tracker: Tracker) -> None:
    run = tracker.start_run(model="toto", hyperparams={})
    with tracker.store.write() as connection:
        connection.execute(text("UPDATE runs SET state = 'lost'"))
    tracker.add_scores(run.run_id, {"val_pct_mae": 1.0})
    assert walked(tracker).is_sound  # it may still go on, so nothing is fixed of it
    tracker.finish_run(run.run_id, "complete", scores={"val_r2": 0.1})
    assert walked(tracker).is_sound


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE scores SET value = 0.1 WHERE metric = 'pct_mae'", ("changed", "run")),
        (
            "UPDATE scores SET value = 0.1 WHERE part = 'test' AND metric = 'mae'",
            ("changed", "run"),
        ),
        ("UPDATE scores SET value = 0.1 WHERE metric = 'sharpe'", ("changed", "scores")),
        ("UPDATE scores SET fingerprint = 'other' WHERE metric = 'r2'", ("changed", "run")),
        ("DELETE FROM scores WHERE metric = 'later'", ("changed", "scores")),
        ("UPDATE runs SET metrics = '{}' WHERE state = 'complete'", ("changed", "run")),
        ("UPDATE runs SET hyperparams = '{}' WHERE state = 'pruned'", ("changed", "run")),
        ("UPDATE runs SET state = 'complete' WHERE state = 'failed'", ("changed", "run")),
        ("UPDATE runs SET state = 'running' WHERE state = 'failed'", ("changed", "run")),
        ("UPDATE runs SET hidden_at = NULL", ("changed", "hidden")),
        ("UPDATE runs SET hidden_at = started_at WHERE hidden_at IS NULL", ("changed", "hidden")),
        ("UPDATE trials SET config = '{}' WHERE number = 2", ("changed", "trial")),
        ("DELETE FROM trials WHERE number = 3", ("removed", "trial")),
        ("UPDATE sweeps SET plan = '{}'", ("changed", "sweep")),
        ("UPDATE verdicts SET outcome = 'promote'", ("changed", "verdict")),
        ("DELETE FROM verdicts", ("removed", "verdict")),
        ("UPDATE test_looks SET why = 'by accident' WHERE why = 'curious'", ("changed", "look")),
        ("DELETE FROM test_looks WHERE why = 'curious'", ("removed", "look")),
        (
            "UPDATE champions SET reason = 'other'"
            " WHERE entry_id > (SELECT min(entry_id) FROM champions)",
            ("changed", "champion"),
        ),
        ("UPDATE champions SET who = 'nobody' WHERE action = 'rollback'", ("changed", "champion")),
        ("DELETE FROM champions WHERE action = 'rollback'", ("removed", "champion")),
        (
            "INSERT INTO champions SELECT 9999, 'k', slot, action, run_id, checkpoint_path,"
            " manifest, verdict_id, reason, content, who, made_at FROM champions"
            " WHERE action = 'rollback'",
            ("inserted", "champion"),
        ),
        ("UPDATE record_chain SET digest = 'x' WHERE position = 9", ("changed", "chain")),
        ("UPDATE record_chain SET previous = 'x' WHERE position = 9", ("inserted", "chain")),
        ("DELETE FROM record_chain WHERE position = 9", ("removed", "chain")),
        ("DELETE FROM record_chain WHERE position = 0", ("removed", "chain")),
        ("DELETE FROM record_chain WHERE position > 16", ("inserted", "look")),
        (
            "INSERT INTO test_looks SELECT 99, run_id, fingerprint, panel_hash, who, why,"
            " looked_at, judging_id, number FROM test_looks WHERE why = 'curious'",
            ("inserted", "look"),
        ),
        (
            "INSERT INTO trials SELECT sweep_id, 9, model_name, config, config_hash, train_hash,"
            " source, created_at FROM trials WHERE number = 1",
            ("inserted", "trial"),
        ),
    ],
)
def test_a_row_changed_removed_or_inserted_by_another_hand_is_named(
    lived: Tracker, statement: str, expected: tuple[str, str]
) -> None:
    tamper(lived, statement)
    assert expected in told(lived)


def test_a_run_that_was_removed_or_put_in_is_named(lived: Tracker) -> None:
    gone = lived.get_runs(state="pruned", include_hidden=True)[0].run_id
    tamper(
        lived,
        f"DELETE FROM scores WHERE run_id = '{gone}'",
        f"DELETE FROM runs WHERE run_id = '{gone}'",
    )
    (problem,) = walked(lived).problems
    assert (problem.what, problem.key) == ("removed", gone)
    with lived.store.read() as connection:
        (run, *_) = connection.execute(text("SELECT * FROM runs")).mappings()
    others = ", ".join(name for name in run if name != "run_id")
    tamper(
        lived,
        f"INSERT INTO runs (run_id, {others}) SELECT 'put-in', {others} FROM runs"
        " WHERE model_name = 'kronos'",
    )
    assert {(p.what, p.key) for p in walked(lived).problems} == {
        ("removed", gone),
        ("inserted", "put-in"),
    }


def test_a_look_removed_and_a_later_one_under_its_number_is_told(lived: Tracker) -> None:
    tamper(lived, "DELETE FROM test_looks WHERE why = 'curious'")
    if not lived.store.is_postgres:  # its counter never goes back
        best = lived.get_runs(state="complete")[0]
        lived.reveal_test(best.run_id, why="as if it were the first")
        assert ("inserted", "chain") in told(lived)
    assert not walked(lived).is_sound


def test_a_chain_written_anew_does_not_hold_a_hash_that_was_noted(lived: Tracker) -> None:
    with lived.store.read() as connection:
        noted = origin(connection).last_hash
    lived.log_run("toto", {}, {})
    assert walked(lived, noted).is_sound  # what came later breaks nothing
    tamper(lived, f"DELETE FROM record_chain WHERE hash = '{noted}'")
    assert ("removed", "chain") in {(p.what, p.kind) for p in walked(lived, noted).problems}


def test_a_copy_keeps_the_chain_and_its_birth(lived: Tracker, place: str, tmp_path: Path) -> None:
    copy_database(place, tmp_path / "copy.db")
    with Tracker(tmp_path / "copy.db") as copy:
        copy.log_run("toto", {}, {})
        found = walked(copy)
        assert found.is_sound
        assert found.database_id == walked(lived).database_id


def test_rows_older_than_the_chain_are_told_apart_and_still_counted(path: Path) -> None:
    with Tracker(path) as tracker:
        sweep = make_sweep(tracker)
        for _ in range(2):
            tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
        put_in_service(tracker)
    with sqlite3.connect(path) as raw:  # as the version before left it
        for later in ("record_chain", "declarations", "live_scores", "live_checks"):
            raw.execute(f"DROP TABLE {later}")
        raw.execute("UPDATE foresweep_version SET version_num = '0006'")
    raw.close()
    with Tracker(path) as tracker:
        new = tracker.log_run("toto", {}, {"val_pct_mae": 2.0})
        found = walked(tracker)
        assert (found.is_sound, found.before) == (True, {"run": 2, "sweep": 1, "champion": 1})
        tracker.heads.reopen(sweep.sweep_id, {"more": 1})
        assert walked(tracker).before == {"run": 2, "champion": 1}
        old = next(run.run_id for run in tracker.get_runs() if run.run_id != new)
        tamper(tracker, f"DELETE FROM scores WHERE run_id = '{old}'")
        assert walked(tracker).is_sound  # nothing is known of what it was
        tamper(tracker, f"DELETE FROM runs WHERE run_id = '{old}'")
        assert [(p.what, p.key) for p in walked(tracker).problems] == [("removed", old)]


def put_in_service(tracker: Tracker) -> None:
    run = tracker.get_runs()[-1]
    number = Service(tracker.store).slot("s").last_id
    Service(tracker.store).change("s", PROMOTE, run_id=run.run_id, manifest=f"m{number}")


def test_what_was_put_in_service_before_it_was_chained_is_named_by_an_entry_of_its_own(
    path: Path,
) -> None:
    with Tracker(path) as tracker:
        tracker.log_run("toto", {}, {})
        put_in_service(tracker)
        put_in_service(tracker)
    with sqlite3.connect(path) as raw:  # as the version before left it
        raw.execute("DELETE FROM record_chain WHERE kind = 'champion'")
        raw.execute("DROP INDEX ix_record_chain_sweeps")
        raw.execute("UPDATE foresweep_version SET version_num = '0009'")
    raw.close()
    with Tracker(path) as tracker:
        put_in_service(tracker)
        found = walked(tracker)
        assert (found.problems, found.before) == ((), {"champion": 2})
        tamper(tracker, "UPDATE champions SET who = 'x' WHERE entry_id = 3")
        assert told(tracker) == {("changed", "champion")}
        tamper(tracker, "DELETE FROM champions WHERE entry_id = 1")
        assert told(tracker) == {("changed", "champion"), ("removed", "champion")}
