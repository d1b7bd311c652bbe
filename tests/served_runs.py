"""Runs that can be put in service at once, of baselines, and what their server is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foresweep.models.checkpoint import write_checkpoint
from foresweep.records import Run, Sweep
from foresweep.serving.asked import Reader
from foresweep.tracker.tracker import Tracker
from panels import make_frame

CONTEXT, HORIZON = 64, 5


def a_sweep(
    tracker: Tracker,
    source: str = "prices",
    horizon: int = HORIZON,
    plan: Mapping[str, Any] | None = None,
) -> Sweep:
    """A complete sweep over a panel of this name."""
    dataset = tracker.add_dataset(
        panel_hash="p", source=source, num_items=3, num_rows=900,
        starts_at="2015-01-05", ends_at="2016-03-01",
    )  # fmt: skip
    return tracker.create_sweep(
        models=["drift"], mode="quick", objective="pct_mae", horizon=horizon, seed=0,
        panel_hash="p", task_hash="t", fingerprints={"tune": "a", "val": "b", "test": "c"},
        plan=dict(plan or {}), dataset_id=dataset,
    )  # fmt: skip


def a_run(
    tracker: Tracker,
    folder: Path,
    model: str = "drift",
    *,
    sweep: Sweep | None = None,
    verdict: str | None = "promote",
    context: int = CONTEXT,
    card: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    source: str = "",
) -> Run:
    """A complete run with a baseline's checkpoint, which plays a trained model, and a verdict."""
    sweep = sweep or a_sweep(tracker)
    run = tracker.start_run(
        model=model, hyperparams={"context_length": context}, sweep_id=sweep.sweep_id,
        is_baseline=False, fingerprints=sweep.fingerprints, config_hash=f"{model}{context}",
        source=source,
    )  # fmt: skip
    told = {"context_length": context} if config is None else dict(config)
    checkpoint = write_checkpoint(
        folder / run.run_id / "checkpoint",
        model=model,
        config=told,
        card={"run_id": run.run_id, "horizon": sweep.horizon, "beats_naive": True, **(card or {})},
    )
    done = tracker.finish_run(
        run.run_id, "complete", scores={"val_pct_mae": 1.0, "val_skill": 0.01},
        checkpoint_path=checkpoint.path,
    )  # fmt: skip
    if verdict is not None:
        judging = tracker.judgings.begin([run.run_id])
        tracker.judgings.end(judging, {run.run_id: {"outcome": verdict, "reason": "as planted"}})
    return done


def body_of(num_items: int = 3, num_bars: int = 100, seed: int = 0, **other: Any) -> dict[str, Any]:
    """A request with the bars of `make_panel(num_items, num_bars, seed)`."""
    frame = make_frame(num_items, num_bars, seed)
    items = []
    for (name,), bars in frame.group_by("item_id", maintain_order=True):
        prices = {c: bars[c].to_list() for c in ("open", "high", "low", "close", "volume")}
        times = [str(t)[:10] for t in bars["timestamp"].to_numpy()]
        items.append({"item_id": name, "timestamp": times, **prices})
    return {"items": items, **other}


def make_calendars(*bodies: Mapping[str, Any]) -> None:
    """Whatever these bodies' calendars take is taken before a request's time is counted: days that
    keep no exchange's holidays are held against every exchange's, seconds of a busy machine."""
    reader = Reader(512, 64, 32)
    for body in (body_of(), *bodies):
        reader.read(json.dumps(body).encode(), HORIZON)
