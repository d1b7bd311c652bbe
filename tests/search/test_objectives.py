"""Sweeps about several metrics at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import ConfigError, ForesweepError, UnknownName, UsageError
from foresweep.records import Run, RunState
from foresweep.search.events import FinalistsChosen, Listener, SeedsCompared
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import baseline_proposals
from foresweep.search.sweep import sweep
from foresweep.selection.leaderboard import leaderboard
from foresweep.selection.pareto import pareto
from foresweep.selection.verdict.runs import ask
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from planted_model import plugin
from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("objectives")]  # its sweeps are made once

BOTH = SweepPlan(
    models=("guest",),
    mode="smart",
    objective="coverage_80,pct_mae",
    max_runs=13,
    cut=Cut(stride=20, max_context=64),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("guest")
    with plugin(found, module=learning_model.MODULE, space=learning_model.SPACE):
        swept(BOTH, found)
        yield found


def swept(plan: SweepPlan, folder: Path, listen: Listener | None = None) -> None:
    know_baselines(folder / "s.db", BOTH)
    sweep(plan, db=folder / "s.db", runs=folder / "runs", listen=listen)


def runs_of(folder: Path) -> list[Run]:
    with Tracker(folder / "s.db") as tracker:
        return tracker.get_runs()


def test_a_smart_sweep_goes_by_both_and_ends_with_a_front(folder: Path) -> None:
    runs = [r for r in runs_of(folder) if r.model_name == "guest"]
    assert [r.source for r in runs] == ["priority: first"] + 12 * ["smart"]
    assert {r.state for r in runs} == {RunState.COMPLETE}
    found = pareto(runs_of(folder), BOTH.objective)
    assert found is not None
    assert found.front
    assert {p.run.run_id for p in found.points} == {r.run_id for r in runs}


def test_what_ranks_and_is_tested_is_the_first_with_losses_per_window(folder: Path) -> None:
    with Tracker(folder / "s.db") as tracker:
        question = ask(tracker)
        runs = tracker.get_runs("guest")
    assert question.metric == "pct_mae"
    assert all(r.objective_score == r.metrics["tune_pct_mae"] for r in runs)


def test_the_same_seed_proposes_the_same_configs(folder: Path, tmp_path: Path) -> None:
    swept(replace(BOTH, max_runs=12), tmp_path)
    again, first = (
        [r.hyperparams for r in runs_of(f) if r.model_name == "guest"] for f in (tmp_path, folder)
    )
    assert again == first[:12]


def test_best_report_and_the_end_of_a_sweep_show_the_front(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    shell, places = Shell(capsys), ["--db", str(folder / "s.db")]
    found = pareto(runs_of(folder), BOTH.objective)
    assert found is not None
    front = {p.run.run_id for p in found.front}
    for said in (shell("best", *places), shell("report", *places)):
        assert all(run_id in said for run_id in front)
        assert "last-value on the same windows: " in said
    assert "## Trade-offs" in said
    rows = json.loads(shell("best", "--top-k", "99", "--json", *places))
    assert {r["run_id"] for r in rows if r["pareto"]["is_front"]} == front
    board = leaderboard(runs_of(folder), metric="val_pct_mae")
    assert rows[0]["run_id"] == (board.best and board.best.run.run_id)
    rows = json.loads(shell("best", "--json", "--metric", "val_pinball", *places))
    assert "pareto" not in rows[0]
    more = ["--runs", str(folder / "runs"), "--stride", "20", "--max-context", "64"]
    asked = ["sweep", "-m", "guest", "--objective", "pct_mae,pinball", "--data", "demo"]
    assert "val_pct_mae, val_pinball" in shell(*asked, *more, *places)


def test_finalists_and_their_median_seed_go_by_what_ranks(folder: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    plan = replace(BOTH, mode="full", max_runs=6, seeds=2, finalists=1)
    swept(plan, tmp_path, heard.append)
    (chosen,) = (e for e in heard if isinstance(e, FinalistsChosen))
    (compared,) = (e for e in heard if isinstance(e, SeedsCompared))
    scores = [r.metrics["tune_pct_mae"] for r in runs_of(tmp_path) if r.model_name == "guest"]
    assert chosen.runs[0].metrics["tune_pct_mae"] == min(scores)
    assert len(compared.runs) == 2


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"objective": "pct_mae,val_sharpe"}, ConfigError, "'val_sharpe'.*tune alone"),
        ({"objective": "test_pct_mae,sharpe"}, ConfigError, "'test_pct_mae'"),
        ({"objective": "pct_mae,sharp"}, UnknownName, "did you mean 'sharpe'"),
        ({"objective": "pct_mae,"}, UnknownName, "unknown objective ''"),
        ({"objective": "pct_mae,sharpe_se"}, UnknownName, "sharpe_se"),
        ({"objective": "pct_mae, sharpe,pct_mae"}, ConfigError, "pct_mae stands there twice"),
        ({"pruning": "both"}, UsageError, "several objectives is not pruned"),
        ({"mode": "focused"}, UsageError, r"--mode focused.*--mode smart"),
    ],
)
def test_objectives_that_cannot_steer_a_sweep_are_refused(
    changed: dict[str, Any], error: type[ForesweepError], says: str
) -> None:
    with pytest.raises(error, match=says):
        replace(BOTH, models=("toto",), **changed).checked()


def test_objectives_are_kept_in_one_form() -> None:
    plan = replace(BOTH, models=("toto",), objective=" pct_mae ,sharpe").checked()
    assert plan.objective == "pct_mae,sharpe"
    assert plan.objectives == ("pct_mae", "sharpe")


def test_baselines_are_scaled_where_one_objective_looks_at_quantiles() -> None:
    plain = baseline_proposals("pct_mae,sharpe")
    assert not any(p.config.get("fit_scale") for p in plain)
    assert baseline_proposals("sharpe,pinball") == baseline_proposals("pinball") != plain
