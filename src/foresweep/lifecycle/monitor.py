"""The monitor: scores what has come true, and says how a champion does: OK, WATCH or ALARM.

ALARM: a dead feed, no forecasts, or losses worse than the benchmark's or last-value's by a paired
test that may be read every day. Everything else is a WATCH. Nothing is kept between two looks but
the rows on record: it may be killed at any moment, and two at once see the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.data.panel import Panel
from foresweep.errors import CheckpointError, UsageError
from foresweep.evaluation.yardstick import LAST_VALUE
from foresweep.lifecycle.champion import checkpoint_in_service, require_champion
from foresweep.lifecycle.evidence import Paired, Series, against, champion_against, shadows_against
from foresweep.lifecycle.scoring import Measure, Scored, measure_of, score_due, selected_until
from foresweep.lifecycle.watches import (
    RECENT,
    Reason,
    State,
    feed_reasons,
    forecast_reasons,
    input_reasons,
    level_reasons,
    mean_error,
    worst,
)
from foresweep.models.registry import BASELINES, ENSEMBLE
from foresweep.search.propose.focus import FEWEST_RUNS, focus
from foresweep.search.propose.modes import load_spaces
from foresweep.search.propose.tpe import earlier_runs, told_of
from foresweep.selection.sealed import open_losses
from foresweep.space import Spaces, Start
from foresweep.stats.significance import origin_means, overlap_lags
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import CHAMPION, Slot
from foresweep.tracker.tracker import Tracker

MORE_RUNS = 20
"""Trials of the sweep that an ALARM asks for."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one look at a slot found."""

    slot: str
    run_id: str
    state: State
    reasons: tuple[Reason, ...]  # the worst first
    metric: str
    horizon: int
    scored: Scored
    against: tuple[Paired, ...]  # the champion against benchmark and last-value
    shadows: tuple[Paired, ...]  # each shadow against the champion
    num_origins: int  # of the champion, scored and counted
    left_out: Mapping[str, int]  # why forecasts are no evidence -> how many
    coverage: float | None  # of the band from 10 to 90 %
    last_bar: str
    last_origin: str | None
    next_sweep: str | None  # the command, after an ALARM that calls for one

    def as_json(self) -> dict[str, Any]:
        return {
            "slot": self.slot,
            "run_id": self.run_id,
            "state": self.state.value,
            "reasons": [
                {"state": r.state.value, "kind": r.kind, "text": r.text} for r in self.reasons
            ],
            "metric": self.metric,
            "horizon": self.horizon,
            "written": self.scored.written,
            "waiting": self.scored.waiting,
            "against": [p.as_json() for p in self.against],
            "shadows": [p.as_json() for p in self.shadows],
            "num_origins": self.num_origins,
            "left_out": dict(self.left_out),
            "coverage": self.coverage,
            "last_bar": self.last_bar,
            "last_origin": self.last_origin,
            "next_sweep": self.next_sweep,
        }


def monitor(
    tracker: Tracker,
    slot: Slot,
    panel: Panel,
    *,
    data: str = "",
    every: int = 1,
    now: datetime | None = None,
    runs_dir: Path | None = None,
    places: Sequence[str] = (),
) -> Check:
    """Score what is due in a slot, look at everything, and put what was found on record.

    `every`: bars between two forecasts, where not every bar has one. `now`: the time (default:
    this machine's); it decides nothing but whether bars are late. `data`, `runs_dir` and `places`
    (`--db ...`) are for the sweep that an ALARM asks for: its narrowed space goes to `runs_dir`.

    Raises NotFound where the slot has no champion, UsageError for a panel of none of its items,
    CheckpointError, DataError, TrackerError.
    """
    champion = require_champion(slot)
    measure = measure_of(tracker, champion)
    card = checkpoint_in_service(champion).card
    known = [str(i) for i in card.get("items", ())]
    if known and not set(known) & set(panel.items):
        raise UsageError(
            f"{panel.source} has none of the items that slot {slot.name} forecasts ({known[0]} "
            f"...); give the prices it is fed with: --data FOLDER"
        )
    scored = score_due(tracker, slot, panel, measure)
    live = Monitoring(tracker.store)
    rows = live.scores(slot.name, role=CHAMPION, manifest=champion.manifest)
    newest = live.last_origin(slot.name, CHAMPION, champion.manifest)
    latest = max((r["scored_at"] for r in rows), default=None)
    at = _clock(now, latest)
    until = selected_until(card)
    paired = champion_against(tracker, slot, measure)
    series = against(rows, LAST_VALUE)
    reasons = [
        *feed_reasons(panel, at),
        *forecast_reasons(
            panel,
            None if newest is None else np.datetime64(newest, "ns"),
            _naive(slot.since or champion.made_at),
            every,
        ),
        *(_worse(p) for p in paired if p.is_found),
        *([] if until is None else input_reasons(panel, until, known)),
        *_levels(series, rows, measure),
        *_left_behind(scored, now, latest),
    ]
    reasons.sort(key=lambda r: list(State).index(r.state), reverse=True)
    lost = any(p.is_found for p in paired)
    check = Check(
        slot=slot.name,
        run_id=champion.run_id,
        state=worst(reasons),
        reasons=tuple(reasons),
        metric=measure.metric,
        horizon=measure.horizon,
        scored=scored,
        against=paired,
        shadows=shadows_against(tracker, slot, measure),
        num_origins=len(series.origins),
        left_out=_left_out(rows),
        coverage=_coverage(rows),
        last_bar=str(panel.timeline[-1].astype("datetime64[s]")),
        last_origin=newest,
        next_sweep=next_sweep(tracker, measure, data, runs_dir, places) if lost else None,
    )
    live.put_check(slot.name, check.state.value, check.as_json())
    return check


def last_check(tracker: Tracker, slot: str) -> dict[str, Any] | None:
    """What the newest look at a slot found, as `Check.as_json` with `checked_at`; None: nobody has
    looked yet. For pages: it reads the record alone."""
    found = Monitoring(tracker.store).checks(slot)
    if not found:
        return None
    return {**found[0]["content"], "checked_at": found[0]["checked_at"]}


def live_series(tracker: Tracker, slot: Slot) -> dict[str, list[Any]]:
    """The champion's live losses for a figure: `origins`, and per origin the scaled losses of
    `champion`, `benchmark` and `last_value`, mean over items; from the record alone."""
    champion = require_champion(slot)
    rows = Monitoring(tracker.store).scores(slot.name, role=CHAMPION, manifest=champion.manifest)
    ours, plain = against(rows, "benchmark"), against(rows, LAST_VALUE)
    return {
        "origins": list(ours.origins),
        "champion": ours.first.tolist(),
        "benchmark": ours.second.tolist(),
        "last_value": plain.second.tolist(),
    }


def _clock(now: datetime | None, latest: datetime | None) -> np.datetime64:
    """The time, never before what is on record: a clock that was set back makes no feed alive."""
    found = now or datetime.now(UTC)
    return _naive(found if latest is None or now is not None else max(found, latest))


def _naive(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ns")


def _worse(paired: Paired) -> Reason:
    said = "" if paired.skill is None else f"by {-100 * paired.skill:.1f} % in raw losses, "
    return Reason(
        State.ALARM,
        "last-value" if paired.second == LAST_VALUE else "benchmark",
        f"the champion does worse than {paired.second}: {said}p = {paired.pvalue:.2g} below "
        f"{paired.level:g} over {paired.num_origins} origins",
    )


def _levels(series: Series, rows: Sequence[Mapping[str, Any]], measure: Measure) -> list[Reason]:
    """WATCHes: scaled losses and coverage against those on val."""
    found: list[Reason] = []
    lags = measure.horizon - 1
    try:
        panel = open_losses(measure.run, "val")
    except CheckpointError:
        return []
    before = origin_means(panel.scaled(measure.metric))
    before = before[np.isfinite(before)]
    if len(before) >= RECENT // 3:
        error = mean_error(before, overlap_lags(measure.horizon, panel.stride))
        what = f"scaled {measure.metric}"
        found += level_reasons(
            series.first, float(before.mean()), error, what, kind="level", lags=lags
        )
    usual = measure.run.score("val_coverage_80")
    covered: dict[str, list[float]] = {}
    for row in rows:
        if row["covered"] is not None:
            covered.setdefault(row["origin"], []).append(row["covered"])
    if usual is not None and covered:
        means = np.array([np.mean(v) for v in covered.values()])
        what = "coverage of the band from 10 to 90 %"
        found += level_reasons(means, usual, 0.0, what, kind="coverage", lags=lags)
    return found


def _left_behind(scored: Scored, now: datetime | None, latest: datetime | None) -> list[Reason]:
    found = []
    if scored.unmatched:
        found.append(
            Reason(
                State.WATCH,
                "unmatched",
                f"{scored.unmatched} forecasts are from bars that these data do not have",
            )
        )
    if now is None and latest is not None and datetime.now(UTC) < latest:
        found.append(
            Reason(
                State.WATCH,
                "clock",
                f"this machine's clock is behind the record, which ends at {latest:%Y-%m-%d %H:%M} "
                f"UTC",
            )
        )
    return found


def _left_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        if row["note"]:
            found[row["note"]] = found.get(row["note"], 0) + 1
    return found


def _coverage(rows: Sequence[Mapping[str, Any]]) -> float | None:
    found = [row["covered"] for row in rows if row["covered"] is not None]
    return float(np.mean(found)) if found else None


# The way back: the exact sweep to run next. It is never started from here: a search that nobody
# counts is how one fools oneself.


def next_sweep(
    tracker: Tracker,
    measure: Measure,
    data: str,
    runs_dir: Path | None = None,
    places: Sequence[str] = (),
) -> str | None:
    """The command of a sweep around what was best, on today's bars; None for a run of no sweep.

    The best of ten runs or more of a model narrow its space, which is written as a sweep file (in
    `runs_dir/spaces`) and given to the command; with fewer, the whole space is searched.
    """
    sweep = measure.sweep
    if sweep is None:
        return None
    model = measure.run.model_name
    every = [model] if model not in (*BASELINES, ENSEMBLE) else list(sweep.models)
    models = [m for m in every if m not in BASELINES]
    words = ["foresweep", "sweep"]
    if runs_dir is not None:
        words += [str(f) for f in _narrowed(tracker, measure, models, runs_dir)]
    for name in models:
        words += ["--model", name]
    words += ["--mode", "smart", "--max-runs", str(MORE_RUNS)]
    words += ["--data", data or str(sweep.plan.get("data", "demo"))]
    words += ["--horizon", str(sweep.horizon), "--objective", sweep.objective]
    if (pretrained := sweep.plan.get("pretrained")) is not None:
        words += ["--pretrained", str(pretrained)]
    elif (size := sweep.plan.get("size")) is not None:
        words += ["--size", str(size)]
    return shlex.join([*words, *places])


def _narrowed(
    tracker: Tracker, measure: Measure, models: Sequence[str], runs_dir: Path
) -> list[Path]:
    sweep = measure.sweep
    assert sweep is not None
    objective = sweep.objective.partition(",")[0]
    pretrained = sweep.plan.get("pretrained")
    base = {"pretrained": pretrained, "size": None if pretrained else sweep.plan.get("size")}
    files = []
    for name in models:
        runs = earlier_runs(tracker, model=name, fingerprints=sweep.fingerprints, base=base)
        told = [told_of(r, tracker, (objective,), sweep_id="") for r in runs]
        if sum(objective in t.scores for t in told) < FEWEST_RUNS:
            continue
        start: Start = "pretrained" if pretrained else "scratch"
        space = load_spaces((name,), start, "focused", Spaces())[name].space
        found = focus(name, space, told, objective)
        file = runs_dir / "spaces" / f"after-{measure.run.run_id}-{name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found.as_toml(objective), "utf-8")
        files.append(file)
    return files
