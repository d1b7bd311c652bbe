"""One run, one answer: every command measures it against the same last-value and benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foresweep.evaluation.losses import load_losses
from foresweep.evaluation.yardstick import last_value
from foresweep.records import Run
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant
from shells import Shell

SKILLS = {f"t{k}": -0.01 - 0.002 * k for k in range(4)} | {"good": 0.05}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    with Tracker(tmp_path / "hyperparams" / "sweeps.db") as tracker:
        planted = plant(tracker, tmp_path / "hyperparams" / "runs", SKILLS)
        join_calibrated(planted)
        yield planted


def join_calibrated(made: Planted) -> Run:
    """A last-value calibrated by hand, better than the sweep's own on every part."""
    run = made.tracker.start_run(
        model="last-value", hyperparams={"fit_scale": True}, sweep_id=made.sweep.sweep_id,
        is_baseline=True, fingerprints=made.sweep.fingerprints, config_hash="scaled",
        source="by hand",
    )  # fmt: skip
    scores = {}
    for part in ("tune", "val", "test"):
        own = load_losses(made.folder / made.id("last-value") / part / "losses.npz")
        losses = {name: 0.99 * values for name, values in own.losses.items()}
        better = replace(own, losses=losses)
        better.save(made.folder / run.run_id / part / "losses.npz")
        scores[f"{part}_pct_mae"] = float(losses["pct_mae"].mean())
        scores[f"{part}_skill"] = 0.0
    return made.tracker.finish_run(
        run.run_id, "complete", scores=scores, forecasts_path=made.folder / run.run_id
    )


def test_every_command_measures_against_the_same_last_value(made, capsys) -> None:
    shell, good = Shell(capsys), made.runs["good"]
    run = made.tracker.get_run(good.run_id)
    skill = run.score("val_skill")
    (best,) = json.loads(shell("best", "--json"))
    assert best["run_id"] == good.run_id
    assert best["skill_vs_last_value"] == pytest.approx(skill)
    shown = json.loads(shell("show", good.run_id, "--json"))
    assert shown["metrics"]["val_skill"] == pytest.approx(skill)
    compared = json.loads(shell("compare", good.run_id, made.id("t0"), "--json"))
    assert compared["metrics"]["val_skill"][0] == pytest.approx(skill)
    assert f"its skill is {100 * skill:+.2f} %" in shell("report")
    (verdict,) = verdict_on_runs(made.tracker, [good.run_id])
    by_name = {a.opponent: a for a in verdict.against}
    assert by_name["last-value"].raw_skill == pytest.approx(skill)
    assert last_value(made.tracker.get_runs()).run_id == made.id("last-value")


@pytest.mark.parametrize("by", ["item", "year", "regime", "origin"])
def test_best_by_says_what_show_by_says(made, capsys, by) -> None:
    shell = Shell(capsys)
    best = json.loads(shell("best", "--by", by, "--json"))
    assert best == json.loads(shell("show", made.id("good"), "--by", by, "--json"))
    ours, theirs = (
        load_losses(made.folder / made.id(n) / "val" / "losses.npz").losses["pct_mae"]
        for n in ("good", "last-value")
    )
    share = np.array([g["num_windows"] for g in best]) / ours.size
    loss = sum(s * g["score"] for s, g in zip(share, best, strict=True))
    assert loss == pytest.approx(ours.mean())
    if by == "item":
        skills = 1 - ours.mean(axis=0) / theirs.mean(axis=0)
        assert [g["skill"] for g in best] == pytest.approx(skills.tolist())


def test_every_command_beats_the_same_benchmark(made, capsys) -> None:
    shell, good = Shell(capsys), made.id("good")
    (best,) = json.loads(shell("best", "--json"))
    (verdict,) = verdict_on_runs(made.tracker, [good])
    assert verdict.benchmark == "random-walk"
    assert best["skill_vs_benchmark"] == pytest.approx(verdict.against[0].raw_skill)
    assert "the best on tune, is `random-walk`" in shell("report")
    assert "vs random-walk" in shell("best", "--top-k", "3")
