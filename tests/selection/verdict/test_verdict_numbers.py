"""Every number of `verdict --json` is what an independent script computes from stored losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foresweep.records import PARTS
from foresweep.tracker.tracker import Tracker
from independent_verdict import checks, recompute
from judged_sweep import plant
from shells import Shell

SKILLS = {f"t{k}": -0.01 - 0.004 * k for k in range(6)} | {"good": 0.07, "near": 0.068}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path."""
    if isinstance(value, dict):
        return {k: v for n, x in value.items() for k, v in flat(x, f"{path}/{n}").items()}
    if isinstance(value, list | tuple):
        return {k: v for n, x in enumerate(value) for k, v in flat(x, f"{path}/{n}").items()}
    return {path: value}


def same(ours: Any, theirs: Any) -> bool:
    """Equal, numbers to nine digits."""
    if isinstance(theirs, str | bool) or theirs is None:
        return bool(ours == theirs)
    return bool(ours == pytest.approx(float(theirs), rel=1e-9, abs=1e-12))


@pytest.mark.parametrize(
    ("horizon", "stride", "origins", "idle"),
    [(5, 5, 60, ()), (1, 1, 41, ("t0", "t3")), (5, 2, 61, ("good",))],
)
def test_every_number_is_recomputed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    horizon: int,
    stride: int,
    origins: int,
    idle: tuple[str, ...],
) -> None:
    database = tmp_path / "sweeps.db"
    with Tracker(database) as tracker:
        made = plant(
            tracker, tmp_path / "runs", SKILLS, horizon=horizon, stride=stride, origins=origins,
            items=12, idle=idle,
        )  # fmt: skip
        failed = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id, trial_number=99,
            fingerprints=made.sweep.fingerprints,
        )  # fmt: skip
        tracker.finish_run(failed.run_id, "failed")
        last = str(made.sweep.plan["parts"]["test"]["from"])[:10]
    said = json.loads(Shell(capsys)("verdict", "--json", "--db", str(database), code=0))
    expected = recompute(database, said["candidate"])
    numbers = flat({k: said[k] for k in expected})
    for path, value in flat(expected).items():
        assert same(numbers.pop(path), value), path
    assert not numbers
    found = [(c["gate"], c["value"], c["threshold"], c["passed"]) for c in said["checks"]]
    for ours, theirs in zip(found, checks(expected, last), strict=True):
        assert all(same(a, b) for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
    words = {"outcome", "reason", "candidate", "label", "metric", "unit", "benchmark_why", "notes"}
    words |= {"answer", "edition"}
    other = {"checks", "targets", "zero_shot"}  # the targets repeat scores of the record
    other |= {"cones", "economy", "record", "declared", "surrogates"}  # beside the gates
    assert set(said) == set(expected) | words | other
    with Tracker(database) as tracker:
        scores = tracker.get_run(said["candidate"]).metrics
    for target in said["targets"][:3]:
        assert target["value"] == scores[target["name"]]
    against = said["against"][0]
    gap = (1 - against["test_raw_skill"]) / (1 - against["raw_skill"]) - 1
    assert said["targets"][4]["value"] == pytest.approx(gap)
    assert PARTS[-1] == "test"
