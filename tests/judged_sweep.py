"""A tracked sweep with planted losses on disk: what a verdict reads, without any training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.data.files import write_npz
from foresweep.evaluation.losses import LossPanel
from foresweep.models.checkpoint import write_checkpoint
from foresweep.records import Run, Sweep
from foresweep.tracker.tracker import Tracker
from planted_losses import losses

ORIGINS, ITEMS, HORIZON = 60, 31, 5
BARS = 250
PARTS = ("tune", "val", "test")
SEEDS = {"tune": 1, "val": 2, "test": 3}
STARTS = {"tune": "2015-01-05", "val": "2016-06-06", "test": "2018-01-08"}
BASELINES = {"random-walk": 0.0, "last-value": -0.02, "drift": -0.05}


@dataclass
class Planted:
    """The sweep's record and its runs by name."""

    tracker: Tracker
    sweep: Sweep
    runs: dict[str, Run]
    folder: Path

    def id(self, name: str) -> str:
        return self.runs[name].run_id


def plant(*args: Any, **kwargs: Any) -> Planted:
    """`_plant`, whose files need not survive a power cut: that takes most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        return _plant(*args, **kwargs)


def _plant(
    tracker: Tracker,
    folder: Path,
    skills: Mapping[str, float],
    *,
    tag: str = "one",
    horizon: int = HORIZON,
    origins: int = ORIGINS,
    objective: str = "pct_mae",
    test_skills: Mapping[str, float] | None = None,
    hyperparams: Mapping[str, Mapping[str, Any]] | None = None,
    cards: Mapping[str, Mapping[str, Any]] | None = None,
    findings: tuple[str, ...] = ("survivorship",),
    items: int = ITEMS,
    configs: Mapping[str, str] | None = None,
    stride: int | None = None,
    idle: tuple[str, ...] = (),
) -> Planted:
    """A sweep with these trials (name -> skill over random-walk) and three baselines; the trading
    rule never trades on the forecasts of those that are `idle`."""
    stride = stride or horizon
    names = [f"X{i:02d}" for i in range(items)]
    dataset = tracker.add_dataset(
        panel_hash=tag, source=f"made up {tag}", num_items=items, num_rows=1000,
        starts_at="2010-01-04", ends_at="2019-08-01",
        findings=[{"rule": rule, "message": rule} for rule in findings],
    )  # fmt: skip
    sweep = tracker.create_sweep(
        models=["toto"],
        mode="quick",
        objective=objective,
        horizon=horizon,
        seed=0,
        panel_hash=tag,
        task_hash=f"task-{tag}",
        fingerprints={p: f"{p}-{tag}" for p in PARTS},
        plan={"parts": {p: _part(p, horizon, stride, origins) for p in PARTS}, "items": names},
        dataset_id=dataset,
    )
    every = BASELINES | dict(skills)
    on_test = every | dict(test_skills or {})
    panels = {
        p: losses(on_test if p == "test" else every, origins=origins, items=items, seed=SEEDS[p])
        for p in PARTS
    }
    made = Planted(tracker, sweep, {}, folder)
    for k, (name, skill) in enumerate(every.items()):
        said = dict((hyperparams or {}).get(name, {}))
        trial = tracker.heads.add_trial(
            sweep.sweep_id, model="toto", config=said, config_hash=name, train_hash=name, source="s"
        )
        run = tracker.start_run(
            model=name if name in BASELINES else "toto",
            hyperparams=said,
            sweep_id=sweep.sweep_id,
            trial_number=trial.number,
            is_baseline=name in BASELINES,
            fingerprints=sweep.fingerprints,
            config_hash=(configs or {}).get(name, f"{tag}-{name}"),
            source="baseline" if name in BASELINES else f"quick: {name}",
        )
        out = folder / run.run_id
        scores = {}
        for p in PARTS:
            loss = panels[p].raw[k]
            panel = LossPanel(
                losses={"pct_mae": loss, "pinball": loss / 3},
                by_lead={"pct_mae": np.repeat(loss[:, :, None], horizon, axis=2)},
                scale=panels[p].scale,
                origins=_days(p, stride, origins),
                items=tuple(names),
                stride=stride,
                fingerprint=sweep.fingerprints[p],
            )
            panel.save(out / p / "losses.npz")
            scores[f"{p}_pct_mae"] = float(loss.mean())
            scores[f"{p}_skill"] = float(1 - loss.mean() / panels[p].raw[1].mean())
            scores[f"{p}_r2"] = 0.001
            scores |= _trade(out, p, skill, sweep.fingerprints[p], k, name in idle)
            scores[f"{p}_naive_pct_mae"] = float(panels[p].raw[1].mean())
        card = dict((cards or {}).get(name, {}))
        checkpoint = write_checkpoint(out / "checkpoint", model="toto", config=said, card=card)
        made.runs[name] = tracker.finish_run(
            run.run_id, "complete", scores=scores, checkpoint_path=checkpoint.path,
            forecasts_path=out, training_time_seconds=10.0 + k,
        )  # fmt: skip
    return made


def _trade(
    out: Path, part: str, skill: float, fingerprint: str, number: int, idle: bool
) -> dict[str, float]:
    """Write the returns of a trading rule that a skill pays, and give its Sharpe ratio."""
    rng = np.random.default_rng([SEEDS[part], number])
    excess = 0.01 * (0.5 * skill + rng.standard_t(4, BARS))
    write_npz(
        out / part / "returns.npz",
        {"excess": excess, "trades": np.array(not idle), "bars_per_year": np.array(252.0),
         "fingerprint": np.array(fingerprint)},
    )  # fmt: skip
    ratio = float("nan") if idle else float(np.sqrt(252) * excess.mean() / excess.std(ddof=1))
    return {f"{part}_sharpe": ratio}


def _days(part: str, stride: int, origins: int) -> Any:
    first = np.datetime64(STARTS[part], "D")
    return np.busday_offset(first, stride * np.arange(origins)).astype("datetime64[ns]")


def _part(part: str, horizon: int, stride: int, origins: int) -> dict[str, Any]:
    days = _days(part, stride, origins + 1).astype("datetime64[s]")
    return {
        "from": str(days[0]),
        "to": str(days[-1]),
        "bars": stride * (origins - 1) + horizon,
        "stride": stride,
        "origins": origins,
        "effective_origins": round(stride * (origins - 1) / horizon + 1, 1),
    }


def spoil_test(made: Planted) -> None:
    """Make every test file unreadable: whoever opens one fails."""
    for file in made.folder.rglob("test/*.npz"):
        file.write_bytes(b"sealed")


def stored(made: Planted) -> list[dict[str, Any]]:
    """What the tracker keeps of verdicts, as plain JSON."""
    rows = made.tracker.judgings.verdicts()
    found: list[dict[str, Any]] = json.loads(json.dumps([dict(r) for r in rows], default=str))
    return found
