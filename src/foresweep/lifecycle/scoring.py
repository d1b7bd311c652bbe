"""Forecasts that were made in service, scored when their truth has come.

Beside last-value and the benchmark on the same windows, by the same loss and scale as everywhere. A
forecast is scored once, when all its H bars are there, and never again: bars that are corrected
later change nothing that a test has taken in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from foresweep.data.panel import IntArray, Panel
from foresweep.data.splits import DEFAULT_MAX_CONTEXT, MIN_CONTEXT, Part, Split
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError
from foresweep.evaluation import yardstick
from foresweep.evaluation.backtest import forecast_part, last_value
from foresweep.evaluation.losses import volatility_scale
from foresweep.evaluation.predict import Forecaster
from foresweep.lifecycle.champion import checkpoint_in_service, checkpoint_of
from foresweep.metrics import METRICS, Outcome, judged_by
from foresweep.models.base import Array, Forecast, Predictor
from foresweep.records import Run, Sweep
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import Entry, Slot
from foresweep.tracker.tracker import Tracker

GRACE = 5
"""Bars beyond a forecast's last label that its truth may come late; then what is there counts."""
LOW, HIGH = 0.1, 0.9
"""Levels of the band whose coverage is watched."""
AFTER_TRUTH = "made after its truth began to be known"
NO_TRUTH = "no truth came"
OTHER_HORIZON = "another horizon than the slot's"
NO_MEDIAN = "no median among its levels"
SELECTED_ON = "from bars that the checkpoint was trained, tuned or selected on"


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """How a slot's forecasts are measured: as in the sweep that its champion comes from."""

    metric: str
    horizon: int
    benchmark: str
    opponents: Mapping[str, Run]  # benchmark and last-value by name, as far as there are runs
    predictor: Predictor | None  # of the benchmark; None: it is last-value
    train_until: np.datetime64 | None  # floors of the scale are of bars up to there; None: all
    max_context: int
    min_context: int
    run: Run  # the judged one, of which val's losses are
    sweep: Sweep | None


def measure_of(tracker: Tracker, entry: Entry) -> Measure:
    """Raises NotFound, CheckpointError where the benchmark's checkpoint is gone."""
    run = tracker.get_run(str(entry.content.get("judged_run_id") or entry.run_id))
    while run.updates is not None:  # an update is measured as what its line came from
        run = tracker.get_run(run.updates)
    sweep = None if run.sweep_id is None else tracker.get_sweep(run.sweep_id)
    plan: Mapping[str, Any] = {} if sweep is None else sweep.plan
    until = plan.get("parts", {}).get("train", {}).get("to")
    card = checkpoint_in_service(entry).card
    metric = judged_by("pct_mae" if sweep is None else sweep.objective)
    beside = tracker.get_runs(fingerprint=run.fingerprint) if run.fingerprint else []
    found = yardstick.benchmark(beside, metric)
    name, predictor = yardstick.LAST_VALUE, None
    opponents = {}
    if (plain := yardstick.last_value(beside)) is not None:
        opponents[name] = plain
    if found is not None and not yardstick.is_last_value(found[1]):
        name = found[0]
        opponents[name] = found[1]
        predictor = Forecaster.load(checkpoint_of(found[1]).path).predictor
    return Measure(
        metric=metric,
        horizon=sweep.horizon if sweep else int(card.get("horizon", 5)),
        benchmark=name,
        opponents=opponents,
        predictor=predictor,
        train_until=None if until is None else np.datetime64(until, "ns"),
        max_context=int(plan.get("max_context", DEFAULT_MAX_CONTEXT)),
        min_context=MIN_CONTEXT,
        run=run,
        sweep=sweep,
    )


def selected_until(card: Mapping[str, Any]) -> np.datetime64 | None:
    """The last bar that a checkpoint was trained, tuned or selected on, by its card."""
    seen = [card.get(name) for name in ("tuned_until", "selected_until")]
    days = [np.datetime64(str(day), "ns") for day in seen if day]
    return max(days, default=None)


def _known_until(entry: Entry) -> np.datetime64 | None:
    """A shadow whose checkpoint is gone does not keep the champion from being watched."""
    try:
        return selected_until(checkpoint_in_service(entry).card)
    except CheckpointError:
        return None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a call did."""

    written: int  # rows
    waiting: int  # forecasts whose truth has not come yet
    unmatched: int  # whose origin is no bar of the panel


def score_due(tracker: Tracker, slot: Slot, panel: Panel, measure: Measure) -> Scored:
    """Score every forecast of a slot, the champion's and its shadows', whose truth is in the panel.

    All forecasts of one checkpoint from one origin are scored together, as soon as every item has
    its bars, or GRACE bars later with those that have. Nothing depends on the clock but whether a
    forecast was made in time. Raises DataError, ForecastError, TrackerError.
    """
    live = Monitoring(tracker.store)
    rows = live.unscored(slot.name)
    if not rows:
        return Scored(0, 0, 0)
    until = {e.manifest: _known_until(e) for e in (slot.champion, *slot.shadows) if e is not None}
    step = np.median(np.diff(panel.timeline[-500:]).astype(np.int64)).astype("timedelta64[ns]")
    counted, ready, unmatched = [], [], 0
    for row in rows:
        why = _why_not(row, measure.horizon, until.get(row["manifest"]), step)
        if why:
            ready.append(_row(row, measure, why))
        elif not _has_bar(panel, row["origin"]):
            unmatched += 1
        else:
            counted.append(row)
    waiting = 0
    for levels in sorted({tuple(row["levels"]) for row in counted}):
        some = [row for row in counted if tuple(row["levels"]) == levels]
        found = _scored(some, panel, measure, levels)
        waiting += len(some) - len(found)
        ready += found
    ready.sort(key=lambda r: (r["origin"], r["number"]))
    return Scored(live.put_scores(ready), waiting, unmatched)


def _why_not(
    row: Mapping[str, Any], horizon: int, until: np.datetime64 | None, step: np.timedelta64
) -> str:
    """Why a forecast is no evidence, "" where it is."""
    first = np.datetime64(row["times"][0], "ns")
    made = datetime.fromisoformat(row["made_at"]).astimezone(UTC).replace(tzinfo=None)
    if row["horizon"] != horizon:
        return OTHER_HORIZON
    if 0.5 not in row["levels"]:
        return NO_MEDIAN
    if until is not None and np.datetime64(row["origin"], "ns") < until:
        return SELECTED_ON
    return AFTER_TRUTH if np.datetime64(made, "ns") >= first + step else ""


def _has_bar(panel: Panel, origin: str) -> bool:
    time = np.datetime64(origin, "ns")
    at = int(np.searchsorted(panel.timeline, time))
    return at < len(panel.timeline) and bool(panel.timeline[at] == time)


def _scored(
    rows: Sequence[Mapping[str, Any]], panel: Panel, measure: Measure, levels: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Rows for the record of those forecasts whose origin is due."""
    windows = live_windows(panel, measure, [np.datetime64(r["origin"], "ns") for r in rows])
    times = panel.timeline[windows.part.origins]
    place = {
        (times[o], panel.items[i]): n
        for n, (o, i) in enumerate(zip(windows.origin, windows.item, strict=True))
    }
    groups: dict[tuple[str, str, str], list[tuple[Mapping[str, Any], int | None]]] = {}
    for row in rows:
        at = place.get((np.datetime64(row["origin"], "ns"), row["item_id"]))
        groups.setdefault((row["role"], row["manifest"], row["origin"]), []).append((row, at))
    due = [pair for group in groups.values() if _is_due(panel, group) for pair in group]
    found = [_row(row, measure, NO_TRUTH) for row, at in due if at is None]
    whole = [(row, at) for row, at in due if at is not None]
    if not whole:
        return found
    cell: IntArray = np.array([n for _, n in whole], dtype=np.int64)
    used = np.unique(cell)
    back = np.searchsorted(used, cell)
    cells = Windows(panel, windows.split, windows.part, only=used)
    theirs = forecast_part(measure.predictor or last_value(cells.split), cells, levels=levels)
    naive = forecast_part(last_value(cells.split), cells, levels=levels)
    scale = volatility_scale(cells)
    # in units of the prices of today: a dividend re-bases all of an adjusted history
    closes = cells.last_close[back]
    then = np.array([row["last_close"] for row, _ in whole])
    told = np.array([row["quantiles"] for row, _ in whole]) * (closes / then)[:, None, None]
    opponents = _losses(measure.metric, theirs, cells.labels, cells.last_close)
    plain = _losses(measure.metric, naive, cells.labels, cells.last_close)
    labels = cells.labels[back]
    losses = _losses(measure.metric, Forecast(told, levels), labels, closes)
    covered = _covered(told, labels, levels)
    for n, (row, _) in enumerate(whole):
        found.append(
            _row(row, measure)
            | {
                "loss": float(losses[n]),
                "last_value_loss": float(plain[back[n]]),
                "benchmark_loss": float(opponents[back[n]]),
                "scale": float(scale[back[n]]),
                "covered": None if covered is None else float(covered[n]),
            }
        )
    return found


def live_windows(panel: Panel, measure: Measure, origins: Iterable[np.datetime64]) -> Windows:
    """The windows of all items at these origins, on the whole panel: those with all H labels."""
    at = np.unique(np.searchsorted(panel.timeline, np.array(sorted(set(origins)))))
    stop = len(panel.timeline)
    known = stop
    if measure.train_until is not None:
        known = int(np.searchsorted(panel.timeline, measure.train_until, side="right"))
    nothing: IntArray = at[:0]
    train = Part("train", 0, max(known, 1), known, 1, nothing)
    live = Part("val", 0, stop, stop, 1, at)
    split = Split(
        measure.horizon,
        measure.max_context,
        measure.min_context,
        (train, live, live, live),
        tuple(range(panel.num_items)),
    )
    return Windows(panel, split, live)


def _is_due(panel: Panel, group: Sequence[tuple[Mapping[str, Any], int | None]]) -> bool:
    if all(at is not None for _, at in group):
        return True
    last = max(np.datetime64(row["times"][-1], "ns") for row, _ in group)
    return int((panel.timeline > last).sum()) >= GRACE


def _losses(metric: str, forecast: Forecast, labels: Array, closes: Array) -> Array:
    """[N] mean over leads, in the metric's unit."""
    loss = METRICS[metric].loss
    assert loss is not None
    found: Array = loss(Outcome(labels, forecast.values, forecast.levels, closes)).mean(axis=1)
    return found


def _covered(values: Array, labels: Array, levels: tuple[float, ...]) -> Array | None:
    """[N] share of leads inside the band from LOW to HIGH; None where it was not asked for."""
    if LOW not in levels or HIGH not in levels:
        return None
    low, high = values[..., levels.index(LOW)], values[..., levels.index(HIGH)]
    found: Array = ((low <= labels) & (labels <= high)).mean(axis=1)
    return found


def _row(row: Mapping[str, Any], measure: Measure, note: str = "") -> dict[str, Any]:
    kept = ("number", "slot", "role", "manifest", "item_id", "origin", "horizon")
    return {name: row[name] for name in kept} | {
        "metric": measure.metric,
        "benchmark": measure.benchmark,
        "note": note,
    }
