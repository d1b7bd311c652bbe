"""The leaderboard: runs scored on the same windows, ranked on val, beside the naive forecast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from foresweep.metrics import METRICS, split_name
from foresweep.records import Run, RunState

LAST_VALUE = "last-value"
SAME = 1e-12
SIGNIFICANT = 0.05
"""Level of a test, shared by all trials of a table (Bonferroni)."""
PLAUSIBLE_SKILL = 0.15
"""Nothing honest on daily prices comes near this skill in pct_mae: look for a leak first."""
EQUALS_NAIVE = "equals last-value"
TOO_GOOD = "too good: look for a leak"
POINT_METRICS = {
    "pct_mae",
    "skill",
    "price_mae",
    "rmse_pct",
    "smape",
    "r2",
    "r2_vs_naive",
    "directional_accuracy",
}
"""Metrics of the median alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    place: int | None  # None: not ranked (failed, pruned, or last-value in disguise)
    run: Run
    score: float | None  # the ranking metric on val
    skill: float | None  # 1 - score / last-value's score on the same windows
    note: str = ""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Runs of one fingerprint. `rows` holds the ranked ones first, then the others."""

    metric: str  # full name, e.g. val_pct_mae
    fingerprint: str
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row | None:
        """The best trained run, baselines aside."""
        return next((r for r in self.rows if r.place and not r.run.is_baseline), None)

    @property
    def leader(self) -> Row | None:
        """The first of all, baselines included."""
        return next((r for r in self.rows if r.place), None)

    @property
    def num_trials(self) -> int:
        """Ranked trained configs: how many a lead was picked from."""
        trained = (r.run for r in self.rows if r.place and not r.run.is_baseline)
        return len({r.config_hash or r.run_id for r in trained})

    def p_value(self, row: Row) -> float | None:
        """One-sided Diebold-Mariano p of a run against last-value, by the losses of the ranking
        metric; None where there is no test of that metric."""
        part, bare = split_name(self.metric)
        if bare not in ("pct_mae", "skill"):
            return None
        return row.run.score(f"{part}_dm_pvalue_vs_naive")


def leaderboard(runs: Iterable[Run], *, metric: str, maximize: bool | None = None) -> Leaderboard:
    """Rank the complete runs by a `val_` or `tune_` metric; all must share one fingerprint.

    `maximize` overrides the metric's own direction. Ties go to the baseline (last-value first),
    then to the older run. A trained run whose medians all equal the last close is last-value in
    disguise: it is shown, and not ranked under point metrics. Raises UnknownName for the metric.
    """
    part, bare = split_name(metric)
    found = sorted(runs, key=lambda r: (not r.is_baseline, r.model_name != LAST_VALUE, r.run_id))
    fingerprints = {r.fingerprint for r in found}
    assert len(fingerprints) <= 1, "scores of different windows must not share a table"
    naive = next((_score(r, metric) for r in found if _is_plain_last_value(r)), None)
    rows = [_row(r, part, bare, naive) for r in found]
    ranked = [r for r in rows if r.score is not None and r.note != EQUALS_NAIVE]
    ranked.sort(key=lambda r: _badness(r, bare, maximize))
    placed = [replace(row, place=k) for k, row in enumerate(ranked, start=1)]
    others = [row for row in rows if row not in ranked]
    return Leaderboard(metric, next(iter(fingerprints), ""), (*placed, *others))


def _badness(row: Row, bare: str, maximize: bool | None) -> float:
    assert row.score is not None
    if maximize is None:
        return METRICS[bare].badness(row.score)
    return -row.score if maximize else row.score


def _score(run: Run, metric: str) -> float | None:
    return run.score(metric) if run.state == RunState.COMPLETE else None


def _row(run: Run, part: str, bare: str, naive: float | None) -> Row:
    score = _score(run, f"{part}_{bare}")
    has_skill = score is not None and naive and METRICS[bare].loss is not None
    note = ""
    if _disguised(run, part, bare):
        note = EQUALS_NAIVE
    elif (run.score(f"{part}_skill") or 0.0) > PLAUSIBLE_SKILL and not run.is_baseline:
        note = TOO_GOOD
    return Row(None, run, score, 1 - score / naive if has_skill else None, note)  # type: ignore[operator]


def _is_plain_last_value(run: Run) -> bool:
    """Last-value as it is, not calibrated: what skill is measured against."""
    return run.model_name == LAST_VALUE and not any(
        run.hyperparams.get(name) for name in ("fit_scale", "isotonic")
    )


def _disguised(run: Run, part: str, bare: str) -> bool:
    """Is this a trained run whose point forecast is the last close everywhere?"""
    skill = run.score(f"{part}_skill")
    return bool(
        not run.is_baseline and bare in POINT_METRICS and skill is not None and abs(skill) < SAME
    )
