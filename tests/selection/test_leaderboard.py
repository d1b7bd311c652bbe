"""The leaderboard: ranks, ties, and last-value in disguise."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from foresweep.errors import UnknownName
from foresweep.records import Run, RunState
from foresweep.selection.leaderboard import leaderboard
from runs import make_run

NAIVE = make_run("last-value", 0, 2.0, skill=0.0)


def order(*runs: Run, maximize: bool | None = None) -> list[str]:
    board = leaderboard(runs, metric="val_pct_mae", maximize=maximize)
    return [r.run.run_id for r in board.rows if r.place]


def test_lower_errors_come_first() -> None:
    assert order(make_run("toto", 1, 2.5), NAIVE, make_run("kronos", 2, 1.5)) == [
        "kronos_002",
        "last-value_000",
        "toto_001",
    ]


def test_maximize_turns_the_order_round() -> None:
    assert order(make_run("toto", 1, 2.5), NAIVE, maximize=True) == ["toto_001", "last-value_000"]


def test_a_tie_goes_to_last_value() -> None:
    assert order(make_run("toto", 1, 2.0, skill=0.001), NAIVE)[0] == "last-value_000"


def test_a_tie_of_trained_runs_goes_to_the_older() -> None:
    assert order(make_run("toto", 2, 1.0), make_run("toto", 1, 1.0)) == ["toto_001", "toto_002"]


def test_skill_is_measured_against_last_value_on_the_same_windows() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 1.5)], metric="val_pct_mae")
    assert board.best is not None
    assert board.best.skill == pytest.approx(0.25)


def test_a_run_that_equals_last_value_everywhere_is_shown_and_not_ranked() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 2.0, skill=0.0)], metric="val_pct_mae")
    row = board.rows[-1]
    assert (row.run.run_id, row.place, row.note) == ("toto_001", None, "equals last-value")
    assert board.best is None


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.PRUNED, RunState.LOST])
def test_runs_that_did_not_complete_are_shown_and_not_ranked(state: RunState) -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 0.1, state=state)], metric="val_pct_mae")
    assert board.best is None
    assert len(board.rows) == 2


def test_a_score_that_is_no_number_never_wins() -> None:
    assert order(make_run("toto", 1, math.nan), NAIVE) == ["last-value_000"]


def test_scores_of_different_windows_never_share_a_table() -> None:
    with pytest.raises(AssertionError):
        leaderboard([NAIVE, make_run("toto", 1, 1.0, fingerprint="other")], metric="val_pct_mae")


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="val_pct_mae"):
        leaderboard([NAIVE], metric="val_pct_ma")


def test_a_skill_too_good_for_prices_is_flagged_not_celebrated() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 1.6, skill=0.2)], metric="val_pct_mae")
    assert board.best is not None
    assert board.best.note == "too good: look for a leak"


def tuned(run: Run, score: float, *, config: str = "", seed: int = 0, seconds: float = 1.0) -> Run:
    """The run with a score on tune."""
    return replace(
        run, metrics={**run.metrics, "tune_pct_mae": score}, config_hash=config, seed=seed,
        training_time_seconds=seconds,
    )  # fmt: skip


def test_the_benchmark_is_the_best_baseline_on_tune_and_skill_is_shown_against_it() -> None:
    drift = replace(tuned(make_run("drift", 1, 1.9), 1.7), source="baseline")
    board = leaderboard([tuned(NAIVE, 1.8), drift, make_run("toto", 2, 1.5)], metric="val_pct_mae")
    assert board.benchmark == "drift"
    assert board.best is not None
    assert board.best.benchmark_skill == pytest.approx(1 - 1.5 / 1.9)
    assert board.best.skill == pytest.approx(1 - 1.5 / 2.0)


def test_a_tie_of_baselines_on_tune_goes_to_last_value() -> None:
    board = leaderboard(
        [tuned(make_run("drift", 1, 1.0), 1.8), replace(tuned(NAIVE, 1.8), source="baseline")],
        metric="val_pct_mae",
    )
    assert board.benchmark == "last-value"


def test_a_variant_of_a_baseline_has_a_name_of_its_own() -> None:
    plain = tuned(make_run("random-walk", 1, 1.0), 1.1)
    runs = [replace(plain, source="baseline"), replace(
        tuned(make_run("random-walk", 2, 1.0), 1.0), source="baseline: ewma, scaled")]  # fmt: skip
    assert leaderboard(runs, metric="val_pct_mae").benchmark == "random-walk (ewma, scaled)"
    assert leaderboard(runs[:1], metric="val_pct_mae").benchmark == "random-walk"


def seeds(*scores: tuple[float, float], first: int = 10) -> list[Run]:
    """Runs of one config: (tune, val) for each seed."""
    return [
        tuned(make_run("toto", first + n, val, skill=0.01), tune, config="c", seed=n)
        for n, (tune, val) in enumerate(scores)
    ]


def test_of_a_config_with_several_seeds_the_median_one_by_tune_is_ranked() -> None:
    runs = seeds((1.2, 1.0), (1.0, 1.6), (1.1, 1.4))
    board = leaderboard([NAIVE, *runs], metric="val_pct_mae")
    ranked = [r for r in board.rows if r.place and not r.run.is_baseline]
    assert [r.run.run_id for r in ranked] == [runs[2].run_id]
    assert ranked[0].seeds is not None
    assert (ranked[0].seeds.num_seeds, ranked[0].seeds.width) == (3, pytest.approx(0.6))
    others = [r.note for r in board.rows if not r.place]
    assert others == [f"another seed of {runs[2].run_id}"] * 2
    assert board.num_trials == 1


@pytest.mark.parametrize(("other", "tie"), [(1.5, True), (1.7, False)])
def test_a_lead_smaller_than_the_spread_over_seeds_is_a_tie(other: float, tie: bool) -> None:
    runs = seeds((1.0, 1.3), (1.1, 1.4), (1.2, 1.55))
    board = leaderboard([NAIVE, *runs, make_run("kronos", 1, other)], metric="val_pct_mae")
    assert (board.tied is not None) is tie


def test_one_seed_makes_no_tie() -> None:
    board = leaderboard([NAIVE, make_run("toto", 1, 1.5), make_run("toto", 2, 1.5001)],
                        metric="val_pct_mae")  # fmt: skip
    assert board.tied is None
