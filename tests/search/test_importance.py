"""Importance finds what mattered, shows where it is chance, and says when runs are few."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foresweep.errors import NotEnoughData
from foresweep.records import Run
from foresweep.search.propose.focus import ENOUGH, FEWEST, importance
from foresweep.tracker.tracker import Tracker
from runs import make_run
from shells import Shell


def runs(num: int, *, strength: float = 1.0, seed: int = 0) -> list[Run]:
    """Runs whose score is a parabola of log lr and noise; batch and loss_type do nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(num):
        lr, batch = rng.random(), int(rng.choice([8, 16, 32, 64]))
        score = 5 + strength * 4 * (lr - 0.6) ** 2 + 0.3 * rng.standard_normal()
        hyperparams = {
            "lr": 10 ** (3 * lr - 5),
            "batch": batch,
            "loss_type": str(rng.choice(["huber", "quantile"])),
            "decay": None if rng.random() < 0.5 else rng.random(),
            "size": "tiny",
        }
        found.append(make_run("toto", k, score, hyperparams=hyperparams))
    return found


def test_what_mattered_comes_first_and_is_hardly_chance() -> None:
    found = importance(runs(80), "val_pct_mae")
    assert found.weights[0].hyperparam == "lr"
    assert found.weights[0].pvalue < 0.05
    assert sum(w.share for w in found.weights) == pytest.approx(1.0)
    assert found.warning is None


def test_where_nothing_mattered_some_share_is_largest_and_its_p_says_that_it_is_chance() -> None:
    found = importance(runs(60, strength=0.0, seed=1), "val_pct_mae")
    assert found.weights[0].share > 0.3
    assert found.weights[0].pvalue > 0.1


def test_a_score_where_more_is_better_is_turned_round() -> None:
    turned = [
        replace(r, metrics={"val_skill": -r.metrics["val_pct_mae"]}) for r in runs(60, seed=2)
    ]
    plain = importance(runs(60, seed=2), "val_pct_mae")
    assert importance(turned, "val_skill").weights == plain.weights


def test_what_did_not_vary_is_not_listed_and_none_is_a_value() -> None:
    names = {w.hyperparam: w.num_values for w in importance(runs(40), "val_pct_mae").weights}
    assert set(names) == {"lr", "batch", "loss_type", "decay"}
    assert names["batch"] == 4


def test_too_few_runs_are_warned_of_with_the_number_needed() -> None:
    few = importance(runs(ENOUGH - 1), "val_pct_mae").warning
    assert few is not None
    assert f"{ENOUGH - 1}, and {ENOUGH} are needed" in few
    with pytest.raises(NotEnoughData, match=f"needs {FEWEST} to be reckoned"):
        importance(runs(FEWEST - 1), "val_pct_mae")
    with pytest.raises(NotEnoughData, match="no hyperparameter varied"):
        importance([replace(r, hyperparams={}) for r in runs(10)], "val_pct_mae")


def test_the_command_lists_every_hyperparameter_with_the_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "runs.db"
    with Tracker(db) as tracker:
        for run in runs(12):
            tracker.log_run("toto", run.hyperparams, run.metrics)
    shell = Shell(capsys)
    text = shell("impact", "--model", "toto", "--db", str(db))
    assert "loss_type" in text
    assert "Too few runs to say which mattered: 12" in text
    said = json.loads(shell("impact", "--model", "toto", "--json", "--db", str(db)))
    assert said["num_runs"] == 12
    assert said["warning"]
    error = shell.error("impact", "-m", "toto", "--metric", "test_pct_mae", "--db", str(db), code=2)
    assert "test" in error
    assert "Spearman" in shell("impact", "lr", "--model", "toto", "--db", str(db))
