"""The leaderboard: runs on the same windows, ranked on val, beside the naive forecast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from foresweep.errors import UsageError
from foresweep.evaluation.yardstick import (
    EQUALS_LAST_VALUE,
    LAST_VALUE,
    benchmark,
    equals_last_value,
    implausible,
    last_value,
    skill_against,
)
from foresweep.metrics import METRICS, split_score
from foresweep.records import STILL_LEARNING, Run, RunState, Shown
from foresweep.tracker.queries.runs import by_config, median_seed

# How far the seeds of one config lie apart.


@dataclass(frozen=True, slots=True)
class Spread:
    """A config's scores over its seeds."""

    num_seeds: int
    lowest: float
    highest: float

    @property
    def width(self) -> float:
        """Highest less lowest: a lead smaller than this is no lead."""
        return self.highest - self.lowest


def spread(scores: Sequence[float]) -> Spread | None:
    """None for fewer than two."""
    if len(scores) < 2:
        return None
    return Spread(len(scores), min(scores), max(scores))


# The leaderboard: runs scored on the same windows, ranked on val, beside the naive forecast.


SIGNIFICANT = 0.05
"""Level of a test, shared by all trials of a table (Bonferroni)."""
TOO_GOOD = "too good: look for a leak"
ANOTHER_SEED = "another seed of"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    place: int | None  # None: not ranked (failed, pruned, or last-value in disguise)
    run: Run
    score: float | None  # the ranking metric on val
    skill: float | None  # 1 - score / last-value's score on the same windows
    note: str = ""
    benchmark_skill: float | None = None  # 1 - score / the benchmark's
    seeds: Spread | None = None  # of its config, where it was trained with several seeds
    superior: bool | None = None  # StepM: better than the benchmark, all counted; None: not asked
    in_mcs: bool | None = None  # cannot be told from the best at 90 %


@dataclass(frozen=True, slots=True)
class Leaderboard(Shown):
    """Runs of one fingerprint. `rows` holds the ranked ones first, then the others."""

    metric: str  # full name, e.g. val_pct_mae
    fingerprint: str
    rows: tuple[Row, ...]
    benchmark: str | None = None  # the baseline that is best on tune by this metric
    one_se_choice: str | None = None  # run id: the cheapest within one standard error of the best

    @property
    def tied(self) -> Row | None:
        """The next trained config, where the best's lead over it is smaller than the spread over
        the best's own seeds; None where there is no such tie or only one seed."""
        trained = [r for r in self.rows if r.place and not r.run.is_baseline]
        if len(trained) < 2 or trained[0].seeds is None:
            return None
        first, second = trained[:2]
        assert first.score is not None
        assert second.score is not None
        return second if abs(second.score - first.score) < trained[0].seeds.width else None

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
        part, bare = split_score(self.metric)
        if bare not in ("pct_mae", "skill"):
            return None
        return row.run.score(f"{part}_dm_pvalue_vs_naive")


def leaderboard(runs: Iterable[Run], *, metric: str, maximize: bool | None = None) -> Leaderboard:
    """Rank the complete runs by a `val_` or `tune_` metric; all must share one fingerprint. Of a
    config with several seeds the median one by tune is ranked; a run that reproduces another has no
    place beside it.

    `maximize` overrides the metric's own direction. Ties go to the baseline (last-value first),
    then to the older run. A trained run whose medians all equal the last close is last-value in
    disguise: it is shown, and not ranked under point metrics. Raises UnknownName for the metric,
    UsageError for one of another part.
    """
    part, bare = split_score(metric)
    if part not in ("val", "tune"):
        raise UsageError(f"--metric {metric}: models are chosen on val or tune, never on the rest")
    originals = (r for r in runs if r.reproduces is None)
    found = sorted(
        originals, key=lambda r: (not r.is_baseline, r.model_name != LAST_VALUE, r.run_id)
    )
    fingerprints = {r.fingerprint for r in found}
    assert len(fingerprints) <= 1, "scores of different windows must not share a table"
    naive = last_value(found)
    name, best = benchmark(found, bare) or (None, None)
    beside = [None if r is None else r.score(metric) for r in (naive, best)]
    rows = _one_row_a_config([_row(r, part, bare, beside) for r in found], part, bare)
    ranked = [r for r in rows if r.score is not None and not _is_unranked(r)]
    ranked.sort(key=lambda r: _badness(r, bare, maximize))
    placed = [replace(row, place=k) for k, row in enumerate(ranked, start=1)]
    others = [row for row in rows if row not in ranked]
    return Leaderboard(
        metric,
        next(iter(fingerprints), ""),
        (*placed, *others),
        benchmark=name,
    )


def _is_unranked(row: Row) -> bool:
    return row.note == EQUALS_LAST_VALUE or row.note.startswith(ANOTHER_SEED)


def _one_row_a_config(rows: list[Row], part: str, bare: str) -> list[Row]:
    """The rows with one of each config to be ranked: its median seed by tune; the others say of
    which run they are another seed."""
    row_of = {row.run.run_id: row for row in rows}
    whole = [r.run for r in rows if not r.run.is_baseline and r.score is not None]
    for group in by_config(whole):
        chosen = median_seed(group, bare)
        scores = [s for r in group if (s := _score(r, f"{part}_{bare}")) is not None]
        for run in group:
            row = replace(row_of[run.run_id], seeds=spread(scores))
            if run is not chosen:
                row = replace(row, note=f"{ANOTHER_SEED} {chosen.run_id}")
            row_of[run.run_id] = row
    return list(row_of.values())


def still_learning(board: Leaderboard) -> str | None:
    """Which trainings ended while they still got better, and how to go on with the first of them;
    None: none did."""
    found = [row.run for row in board.rows if STILL_LEARNING in row.run.tags]
    if not found:
        return None
    steps = 2 * int(found[0].hyperparams.get("max_steps") or 0)
    names = [f"{r.model_name} ({r.source.partition(': ')[2] or r.source})" for r in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"Still learning when its steps were over: {', '.join(names)}{more}. To go on with the "
        f"first: foresweep train --continue {found[0].run_id} --max-steps {steps}"
    )


def _badness(row: Row, bare: str, maximize: bool | None) -> float:
    assert row.score is not None
    if maximize is None:
        return METRICS[bare].badness(row.score)
    return -row.score if maximize else row.score


def _score(run: Run, metric: str) -> float | None:
    return run.score(metric) if run.state == RunState.COMPLETE else None


def _row(run: Run, part: str, bare: str, beside: Sequence[float | None]) -> Row:
    score = _score(run, f"{part}_{bare}")
    note = ""
    if equals_last_value(run, part, bare):
        note = EQUALS_LAST_VALUE
    elif implausible(run.score(f"{part}_skill")) and not run.is_baseline:
        note = TOO_GOOD
    elif STILL_LEARNING in run.tags:
        note = STILL_LEARNING
    skills = [skill_against(score, other, bare) for other in beside]
    return Row(None, run, score, skills[0], note, skills[1])
