"""The verdict on anybody's losses: a long table from W&B, MLflow, Optuna or a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foresweep.data.reading.losses import LongTable, read_long_table
from foresweep.errors import DataError, UnknownName, UsageError
from foresweep.evaluation.yardstick import (
    LAST_VALUE,
    PLAUSIBLE_SKILL,
    effective_origins,
    implausible,
)
from foresweep.records import Check, Verdict
from foresweep.selection.verdict.case import UNSAID, Case, PartLosses, Weights, choose_benchmark
from foresweep.selection.verdict.gates import Opened, judge
from foresweep.stats.significance import Array, block_length, unrelated

DECAY = 0.9
"""Of the EWMA that stands in for a scale; measured on real prices beside the volatility itself."""
FLOOR_SHARE = 0.25
MOST_MISSING = 0.10
"""A trial that lacks more of the benchmark's cells is left out; else it loses on those it lacks."""
RELATED = 0.01
"""Chance below which cells are not missing at random."""
NAMES_OF_LAST_VALUE = (LAST_VALUE, "last_value", "lastvalue", "naive", "persistence")
SCRATCH = "none"
"""In place of a last day: the weights were trained from scratch."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How a file of losses is to be judged."""

    benchmarks: tuple[str, ...]
    candidate: str | None = None
    horizon: int = 1  # bars
    stride: int = 1  # bars between origins
    num_trials: int | None = None  # tried in all; None: those in the file
    earlier_judged: int = 0
    earlier_looks: int = 0
    cutoff: str | None = None  # last day of the data of pretrained weights; "none": from scratch
    growing: bool = False  # is its test read for ever, as rows are added?


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """One part, laid out: the benchmark's cells. A kept trial that lacks some loses there."""

    losses: PartLosses
    origins: tuple[int, ...]
    notes: tuple[str, ...]
    chance_of_holes: dict[str, float] = field(default_factory=dict)
    """Of the trials that lack cells: how likely they are to lie where losses are as large."""


def verdict_on_file(path: Path, asked: Asked, *, seed: int = 0) -> Verdict:
    """The verdict on a trial (default: lowest scaled loss on val) of a file of losses.

    Raises DataError for a file that cannot be judged, UnknownName, UsageError.
    """
    table = read_long_table(path)
    _require(table, asked, path)
    case = Case(
        metric="loss",
        unit="as in the file",
        horizon=asked.horizon,
        stride=asked.stride,
        trials=(),
        baselines=asked.benchmarks,
        val=_unread,
        tune=_tune(table),
    )
    benchmark, why = choose_benchmark(case)
    grids = _grids(table, asked, "val", benchmark)
    present = grids.losses.names
    naive = next((p for n in NAMES_OF_LAST_VALUE for p in present if p.lower() == n), None)
    trials = tuple(n for n in present if n not in (*asked.benchmarks, naive))
    if asked.candidate is not None and asked.candidate not in trials:
        raise UnknownName("trial", asked.candidate, trials, where="among those with losses on val")
    if not trials:
        raise DataError(f"{path}: no trial beside {benchmark} has its cells on val")
    everyone = sum(n not in (*asked.benchmarks, naive) for n in table.trials)
    if everyone == 1 and asked.num_trials is None:
        raise UsageError(
            f"{path} holds one trial beside the benchmark: the best of how many? Give --trials N, "
            f"failed and pruned ones counted; --trials 1 where nothing else was ever tried"
        )
    candidate = asked.candidate or grids.losses.best_scaled(trials)
    test = _test_origins(table, (candidate, benchmark))
    counts = {"test": len(test), "val": grids.losses.num_origins}
    case = replace(
        case,
        trials=trials,
        baselines=(benchmark,),
        val=lambda: grids.losses,
        last_value=naive,
        num_origins=counts,
        effective_origins={
            part: effective_origins({"origins": count, "stride": asked.stride}, asked.horizon)
            for part, count in counts.items()
        },
        candidate=candidate,
        judged_number=asked.earlier_judged + 1,
        num_trials=max(asked.num_trials or 0, everyone),
        num_hidden=max(asked.num_trials or 0, everyone) - len(trials),
        suspicions=tuple(_suspicions(grids, candidate, benchmark, naive)),
        weights=Weights(
            cutoff=None if asked.cutoff == SCRATCH else asked.cutoff,
            source=UNSAID if asked.cutoff is None else "--pretrain-cutoff",
            pretrained=asked.cutoff not in (None, SCRATCH),
            test_from=table.origins[test[0]] if test and table.dated else None,
        ),
    )
    on_test: list[str] = []

    def open_test(_: Sequence[int]) -> Opened:
        names = dict.fromkeys((candidate, benchmark, *([naive] if naive else [])))
        part = _grids(table, asked, "test", benchmark, tuple(names))
        on_test.extend(part.notes)
        return Opened(asked.earlier_looks + 1, (part.losses,), asked.growing)

    found = judge(case, open_test if test else None, seed=seed)
    return replace(
        found,
        benchmark_why="as asked" if len(asked.benchmarks) == 1 else why,
        notes=(*_notes(table, asked, candidate), *grids.notes, *on_test),
    )


def _unread() -> PartLosses:
    raise AssertionError("val is read only once the benchmark is fixed")


def _require(table: LongTable, asked: Asked, path: Path) -> None:
    """Raises UnknownName, DataError, UsageError for what cannot be judged."""
    for name in (*asked.benchmarks, *([asked.candidate] if asked.candidate else [])):
        if name not in table.trials:
            raise UnknownName("trial", name, table.trials, where=f"in {path}")
    if asked.candidate in asked.benchmarks:
        raise UsageError(f"{asked.candidate!r} cannot be both candidate and benchmark")
    if asked.cutoff not in (None, SCRATCH) and not table.dated:
        raise UsageError("--pretrain-cutoff needs origins that are dates; these are numbers")
    val, test = (table.origin[table.part == part] for part in ("val", "test"))
    if not len(val):
        raise DataError(f"{path} has no row of part val: there is nothing to judge by")
    if len(below := np.flatnonzero(table.loss < 0)):
        row = below[0]
        raise DataError(
            f"{path}: the loss of {str(table.trial[row])!r} at {table.origins[table.origin[row]]} "
            f"is {table.loss[row]:g}, below 0: a skill is a share of losses; use one that is never "
            f"negative (an absolute error, pinball)"
        )
    if not len(test):
        return
    if test.min() <= val.max():
        raise DataError(
            f"{path}: test begins at {table.origins[test.min()]}, before val ends at "
            f"{table.origins[val.max()]}; test has to lie after val"
        )
    bars = _bars_between(table, val, int(test.min()), asked.stride)
    if bars < asked.horizon:
        raise DataError(
            f"{path}: test begins {bars:g} bars after the last origin of val, whose labels reach "
            f"{asked.horizon} bars ahead, into test; leave out the last "
            f"{-(-asked.horizon // asked.stride) - 1} origins of val"
        )


def _bars_between(table: LongTable, val: NDArray[np.int64], test: int, stride: int) -> float:
    """Bars from val's last origin to test's first, by the usual distance of val's own."""
    if not table.dated:
        at = np.array([float(o) for o in table.origins])
    else:
        at = np.array(table.origins, dtype="datetime64[s]").astype(np.float64)
    own = at[np.unique(val)]
    if len(own) < 2:
        return float("inf")
    return float(round(float((at[test] - own[-1]) / np.median(np.diff(own)))) * stride)


def _suspicions(
    grids: Grids, candidate: str, benchmark: str, naive: str | None
) -> Iterator[tuple[Check, str]]:
    """What a file cannot be cleared of, as checks, each with what to say where it fails."""
    yield (
        Check(gate=3, name="last-value judges, too", value=naive or "not in the file",
              relation="is", threshold="in the file", passed=naive is not None),
        f"{benchmark} may be easy to beat: add the losses of last-value, whose forecast is the "
        f"last close, as a trial of that name",
    )  # fmt: skip
    skill = grids.losses.raw_skill(candidate, naive or benchmark)
    yield (
        Check(gate=3, name=f"plausible skill against {naive or benchmark}", value=skill,
              relation="<", threshold=PLAUSIBLE_SKILL, passed=not implausible(skill)),
        f"too good to be true: a skill of {100 * skill:.0f} % is not seen on prices; look for a "
        f"leak (labels among the inputs, forecasts joined a bar late) before anything else",
    )  # fmt: skip
    if candidate in grids.chance_of_holes:
        chance = grids.chance_of_holes[candidate]
        yield (
            Check(gate=3, name="p that cells are missing at random", value=chance, relation=">=",
                  threshold=RELATED, passed=chance >= RELATED),
            f"{candidate} lacks cells where losses are large: whoever skips storms looks good; "
            f"forecast every window of the benchmark",
        )  # fmt: skip


def _tune(table: LongTable) -> dict[str, float]:
    """Raw mean loss of each trial on tune, over the cells that all who have any share."""
    chosen = table.part == "tune"
    names = [n for n in table.trials if (chosen & (table.trial == n)).any()]
    if not names:
        return {}
    panels = np.array([_panel(table, table.loss, n, "tune") for n in names])
    common = ~np.isnan(panels).any(axis=0)
    return {n: float(p[common].mean()) for n, p in zip(names, panels, strict=True) if common.any()}


def _panel(table: LongTable, values: Array, trial: str, part: str | None) -> Array:
    """[all origins, items] of one trial; NaN where it has no row. `part` None: of every part."""
    rows = table.trial == trial
    if part is not None:
        rows &= table.part == part
    out = np.full((len(table.origins), len(table.items)), np.nan)
    out[table.origin[rows], table.item[rows]] = values[rows]
    return out


def _scales(table: LongTable, benchmark: str, asked: Asked, *, own: bool = False) -> Array:
    """[all origins, items] the scale in the file, else (or where it shall be our `own`) the EWMA of
    the benchmark's earlier losses: what comes later moves neither."""
    own = own or table.scale is None
    values = table.loss if own or table.scale is None else table.scale
    found = _panel(table, values, benchmark, None)
    if own:
        return earlier_losses(found, lag=block_length(asked.horizon, asked.stride))
    return np.where(found > 0, found, np.nan)


def earlier_losses(losses: Array, *, lag: int) -> Array:
    """[O, I] EWMA (0.9) of the sizes of an item's losses at least `lag` origins back, at least a
    quarter of the mean of all losses known by then; NaN before there is one.

    At an origin only losses whose labels have come by then are known: `lag` is ceil(H / stride).
    """
    sizes = np.abs(losses)
    weighted, weight = np.zeros(sizes.shape[1]), np.zeros(sizes.shape[1])
    total, count = 0.0, 0
    out = np.full(sizes.shape, np.nan)
    for t in range(lag, len(sizes)):
        new = sizes[t - lag]
        there = ~np.isnan(new)
        weighted[there] = DECAY * weighted[there] + new[there]
        weight[there] = DECAY * weight[there] + 1.0
        total, count = total + float(new[there].sum()), count + int(there.sum())
        known = weight > 0
        floor = FLOOR_SHARE * total / count if count else 0.0
        out[t, known] = np.maximum(weighted[known] / weight[known], floor)
    return np.where(out > 0, out, np.nan)


def _grids(
    table: LongTable,
    asked: Asked,
    part: str,
    benchmark: str,
    names: Sequence[str] | None = None,
) -> Grids:
    """One part on the benchmark's cells with a scale. Where a kept trial has none it is taken to
    lose to the benchmark by as much as it differs from it elsewhere."""
    wanted = list(names or table.trials)
    panels = {n: _panel(table, table.loss, n, part) for n in wanted}
    reference = ~np.isnan(panels[benchmark])
    if not reference.any():
        raise DataError(f"benchmark {benchmark!r} has no losses on {part}")
    scale = _scales(table, benchmark, asked)
    scaled = reference & ~np.isnan(scale)
    notes = []
    if beyond := int((~np.isnan(list(panels.values()))).any(axis=0).sum() - reference.sum()):
        notes.append(f"{beyond} cells of {part} have no loss of {benchmark}: left out.")
    if without := int(reference.sum() - scaled.sum()):
        why = "no positive scale" if table.scale is not None else "no earlier losses to scale by"
        notes.append(f"{without} cells of {part} have {why}: left out.")
    lacking = {n: _share_lacking(p, scaled) for n, p in panels.items()}
    gone = [n for n, share in lacking.items() if share > MOST_MISSING and n != benchmark]
    kept = [n for n in wanted if n not in gone]
    if names and gone:
        raise DataError(
            f"{', '.join(gone)} lacks more than {MOST_MISSING:.0%} of {benchmark}'s cells on "
            f"{part}: it cannot be confirmed there"
        )
    if gone:
        notes.append(
            f"{len(gone)} trials lack more than {MOST_MISSING:.0%} of {benchmark}'s cells on "
            f"{part} and are left out: {', '.join(gone)}."
        )
    if not scaled.any():
        raise DataError(f"no cell of {part} is left: {' '.join(notes)}")
    chances: dict[str, float] = {}
    for name in [n for n in kept if lacking[n]]:
        hole = scaled & np.isnan(panels[name])
        with_value = scaled & ~hole
        gap = ((panels[benchmark] - panels[name]) / scale)[with_value].mean()
        panels[name] = np.where(hole, panels[benchmark] + abs(gap) * scale, panels[name])
        theirs, known = (np.where(scaled, x, np.nan) for x in (panels[benchmark], scale))
        sizes = [theirs / known, *(x / np.nanmean(x, axis=0) for x in (theirs, known))]
        chances[name] = min(1.0, len(sizes) * min(unrelated(hole, size) for size in sizes))
    if chances:
        holes = ", ".join(f"{n} {100 * lacking[n]:.1f} %" for n in chances)
        notes.append(
            f"Cells of {part} are missing for {len(chances)} trials ({holes}): they count there as "
            f"losing to {benchmark} by as much as they differ from it elsewhere."
        )
    rows = np.flatnonzero(scaled.any(axis=1))
    raw = np.array([np.where(scaled, panels[n], np.nan)[rows] for n in kept])
    scales = np.where(scaled, scale, np.nan)[rows]
    ours = None
    if table.scale is not None:  # whoever wrote it may have known the losses: ask by ours, too
        known = _scales(table, benchmark, asked, own=True)
        ours = np.where(scaled, known, np.nan)[rows]
    losses = PartLosses(tuple(kept), raw, scales, items=table.items, own_scale=ours)
    if losses.raw_mean(benchmark) <= 0:
        raise DataError(
            f"the losses of {benchmark!r} on {part} are not positive on average: a skill is a "
            f"share of them; use a loss that is never negative"
        )
    return Grids(losses, tuple(int(r) for r in rows), tuple(notes), chances)


def _share_lacking(panel: Array, cells: NDArray[np.bool_]) -> float:
    return float(np.isnan(panel[cells]).mean()) if cells.any() else 1.0


def _test_origins(table: LongTable, names: Sequence[str]) -> tuple[int, ...]:
    """Origins of test at which all of these have a row: their losses are not looked at."""
    test = table.part == "test"
    found = [set(table.origin[test & (table.trial == n)].tolist()) for n in names]
    return tuple(sorted(set.intersection(*found)))


def _notes(table: LongTable, asked: Asked, candidate: str) -> tuple[str, ...]:
    notes = [f"{count} rows {why}: left out." for why, count in table.left_out.items()]
    tested = set(table.trial[table.part == "test"].tolist())
    without = [n for n in table.trials if n not in tested]
    if without and tested:
        notes.append(
            f"{len(without)} trials have no losses on test, so they count and cannot be confirmed: "
            f"{', '.join(without)}."
        )
    if candidate in without:
        notes.append(f"{candidate} has no losses on test: nothing can confirm it.")
    if table.scale is None:
        notes.append("No scale in the file: losses are scaled by the benchmark's own earlier ones.")
    if asked.num_trials is None:
        notes.append(
            "Only the trials in the file count; give --trials N where more were tried, failed and "
            "pruned ones too."
        )
    if asked.earlier_looks == 0:
        notes.append("A file knows no history: this is taken for the first look at its test.")
    if asked.cutoff is None:
        notes.append(
            "The file does not say where the weights come from: give --pretrain-cutoff DATE, the "
            "last day of their data, or --pretrain-cutoff none where they are trained from scratch."
        )
    return (*notes, "Survivorship: a file of losses cannot tell whether its items are survivors.")
