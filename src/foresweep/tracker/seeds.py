"""Runs of one config that differ in seed: which of them stands for it.

Nothing is marked in the database: the representative follows from the runs themselves, so that a
seed trained later moves it. It is the run with the (lower) median loss on tune, the one that would
be deployed; a lucky seed ranks nowhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from foresweep.records import Run, RunState, split_name
from foresweep.tracker.rows import run_of
from foresweep.tracker.schema import runs

AT_ONCE = 500
"""Hashes a query asks about."""


def by_config(found: Iterable[Run]) -> list[list[Run]]:
    """Runs grouped by config, in the order met; a run without a config hash stands alone, one that
    reproduces another stands nowhere: it would count that seed twice."""
    groups: dict[str, list[Run]] = {}
    for run in found:
        if run.reproduces is None:
            groups.setdefault(run.config_hash or run.run_id, []).append(run)
    return list(groups.values())


def median_seed(found: Sequence[Run], metric: str) -> Run:
    """The run with the (lower) median loss on tune by a metric's bare name; ties go to the smaller
    run id. A run without that score counts as the worst."""
    from foresweep.metrics import METRICS

    def badness(run: Run) -> tuple[float, str]:
        score = run.score(f"tune_{metric}")
        return (math.inf if score is None else METRICS[metric].badness(score)), run.run_id

    ranked = sorted(found, key=badness)
    return ranked[(len(ranked) - 1) // 2]


def seeds_of(connection: Connection, run: Run) -> list[Run]:
    """The complete runs of a run's config on the same windows, by run id: itself alone where it has
    no config hash, and itself or not by its own state."""
    if not run.config_hash:
        return [run] if run.state is RunState.COMPLETE else []
    return _complete(connection, [run])


def standing(connection: Connection, found: Sequence[Run], metric: str) -> list[Run]:
    """Those of complete runs of one fingerprint, in their order, that stand for their configs by a
    metric's full name. Baselines and runs without a config hash stand for themselves, a run that
    reproduces another for nothing."""
    from foresweep.metrics import METRICS

    bare = split_name(metric)[1]
    seeded = _with_seeds(connection, found) if bare in METRICS else set()
    asked = [run for run in found if run.config_hash in seeded]
    groups = by_config(_complete(connection, asked)) if asked else []
    chosen = {group[0].config_hash: median_seed(group, bare).run_id for group in groups}
    return [
        run
        for run in found
        if run.reproduces is None and chosen.get(run.config_hash, run.run_id) == run.run_id
    ]


def _with_seeds(connection: Connection, found: Sequence[Run]) -> set[str]:
    """The config hashes of these runs that more than one run has, whatever became of it."""
    trained = [run for run in found if run.config_hash and not run.is_baseline]
    counted: Counter[str] = Counter()
    for k in range(0, len(trained), AT_ONCE):
        hashes = {run.train_hash for run in trained[k : k + AT_ONCE]}
        query = select(runs.c.config_hash).where(runs.c.train_hash.in_(hashes))
        counted.update(connection.execute(query).scalars())
    return {config for config, number in counted.items() if number > 1}


def _complete(connection: Connection, found: Sequence[Run]) -> list[Run]:
    """Every complete run of these runs' configs on their windows, by run id, hidden ones and
    reproductions aside.

    The database looks train hashes up, which is an index's work, and the rest is sifted here: told
    more, SQLite may choose to read every complete run instead.
    """
    same = {(run.config_hash, run.fingerprint) for run in found}
    rows: dict[str, Run] = {}
    for k in range(0, len(found), AT_ONCE):
        hashes = {run.train_hash for run in found[k : k + AT_ONCE]}
        query = select(runs).where(runs.c.train_hash.in_(hashes))
        for row in connection.execute(query).mappings():
            shown = row["state"] == RunState.COMPLETE.value and row["hidden_at"] is None
            if shown and (row["config_hash"], row["fingerprint"]) in same:
                rows[row["run_id"]] = run_of(row)
    return [run for _, run in sorted(rows.items()) if run.reproduces is None]
