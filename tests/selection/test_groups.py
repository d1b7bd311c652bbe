"""A run of record, asked again: by group and at another cost, never on test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.tables import write_panel
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, ConfigError, PanelChanged, UnknownName, UsageError
from foresweep.evaluation.backtest import evaluate, last_value
from foresweep.evaluation.yardstick import BASELINE_SOURCE
from foresweep.models.baselines.naive import Drift
from foresweep.records import Run
from foresweep.search.stage import task_hash
from foresweep.selection.export import best_card
from foresweep.selection.groups import run_groups, run_trading
from foresweep.selection.leaderboard import Row
from foresweep.tracker.tracker import Tracker
from panels import make_panel
from shells import Shell

PANEL = make_panel(4, 700, seed=8)
SPLIT = make_split(PANEL, Cut(3))


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path / "hyperparams" / "runs"


@pytest.fixture
def tracker(runs_dir: Path) -> Iterator[Tracker]:
    with Tracker(runs_dir.parent / "sweeps.db") as opened:
        yield opened


@pytest.fixture
def drift(tracker: Tracker, runs_dir: Path) -> Run:
    """A run of drift, standing for a trained model, beside one of last-value."""
    return record_sweep(tracker, runs_dir, PANEL, SPLIT)


def record_sweep(tracker: Tracker, runs_dir: Path, panel: Panel, split: Split) -> Run:
    prints = {p: Windows(panel, split, split.part(p)).fingerprint for p in ("tune", "val", "test")}
    write_panel(runs_dir / "panels" / f"{panel.hash[:16]}.npz", panel)
    sweep = tracker.create_sweep(
        models=["drift"],
        mode="quick",
        objective="pct_mae",
        horizon=split.horizon,
        seed=0,
        panel_hash=split.cut_hash(panel),
        task_hash=task_hash(split, prints),
        fingerprints=prints,
        plan={"parts": {}, "max_context": split.max_context, "data": "gone"},
    )
    drift = Drift().predictor(Drift.Config(context_length=100))
    for model, predictor in (("last-value", last_value(split)), ("drift", drift)):
        run = tracker.start_run(
            model=model,
            hyperparams={},
            sweep_id=sweep.sweep_id,
            is_baseline=model == "last-value",
            fingerprints=prints,
            source=model,
        )
        out = runs_dir / run.run_id
        scores = evaluate(predictor, panel, split, out=out)
        run = tracker.finish_run(run.run_id, "complete", scores=scores, forecasts_path=out)
        (out / "test" / "losses.npz").write_bytes(b"sealed")
        (out / "test" / "forecasts.npz").write_bytes(b"sealed")
    return run


@pytest.mark.parametrize("name", ["val_pct_mae", "tune_pinball", "val_coverage_80"])
@pytest.mark.parametrize("by", ["item", "origin", "lead", "month", "year", "regime"])
def test_groups_of_a_run_average_to_its_score(tracker, runs_dir, drift, name, by):
    found = run_groups(tracker, drift, name, by, runs_dir=runs_dir)
    count = [g.num_windows for g in found]
    mean = np.average([g.score for g in found], weights=count)
    assert mean == pytest.approx(drift.metrics[name], rel=1e-5)  # forecasts are kept as float32
    kept = name != "val_coverage_80"
    assert all((g.skill is not None) == kept for g in found)


def test_skill_is_against_last_value_on_the_windows_of_that_part(tracker, runs_dir, drift):
    fair = run_groups(tracker, drift, "tune_pct_mae", "item", runs_dir=runs_dir)
    other = tracker.start_run(  # of a sweep whose val is the same and whose tune is not
        model="last-value",
        hyperparams={},
        sweep_id=drift.sweep_id,
        is_baseline=True,
        fingerprints={**drift.fingerprints, "tune": "other windows"},
        source=BASELINE_SOURCE,
    )
    tracker.finish_run(
        other.run_id, "complete", scores=drift.metrics, forecasts_path=drift.forecasts_path
    )
    assert run_groups(tracker, drift, "tune_pct_mae", "item", runs_dir=runs_dir) == fair
    val = run_groups(tracker, drift, "val_pct_mae", "item", runs_dir=runs_dir)
    assert [g.skill for g in val] == [0.0] * len(val)  # there it does count


def test_metrics_with_and_without_losses_on_record_name_the_same_groups(tracker, runs_dir, drift):
    for by in ("item", "origin", "month", "year", "regime", "lead"):
        names = ("val_pct_mae", "val_mase")
        one, other = (run_groups(tracker, drift, m, by, runs_dir=runs_dir) for m in names)
        assert [(g.key, g.num_windows, g.num_origins) for g in one] == [
            (g.key, g.num_windows, g.num_origins) for g in other
        ]


def test_the_stored_trading_scores_come_back_and_another_cost_gives_others(
    tracker, runs_dir, drift
):
    same = run_trading(tracker, drift, "val", runs_dir=runs_dir).scores
    assert {k: drift.metrics[f"val_{k}"] for k in same} == pytest.approx(same)
    dear = run_trading(tracker, drift, "val", runs_dir=runs_dir, cost_bps=50).scores
    assert dear["max_drawdown"] > same["max_drawdown"]
    with pytest.raises(ConfigError, match="cost_bps"):
        run_trading(tracker, drift, "val", runs_dir=runs_dir, cost_bps=-1)


def test_test_is_not_looked_at(tracker, runs_dir, drift):
    with pytest.raises(UsageError, match="foresweep verdict RUN"):
        run_groups(tracker, drift, "test_pct_mae", "item", runs_dir=runs_dir)
    with pytest.raises(UsageError, match="foresweep verdict RUN"):
        run_trading(tracker, drift, "test", runs_dir=runs_dir)


def test_what_cannot_be_told_is_said(tracker, runs_dir, drift):
    with pytest.raises(UsageError, match="sharpe is of all windows together"):
        run_groups(tracker, drift, "val_sharpe", "item", runs_dir=runs_dir)
    with pytest.raises(UnknownName, match="did you mean 'item'"):
        run_groups(tracker, drift, "val_coverage_80", "itm", runs_dir=runs_dir)
    by_hand = tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
    with pytest.raises(CheckpointError, match="no forecasts on record"):
        run_groups(tracker, tracker.get_run(by_hand), "val_mase", "item", runs_dir=runs_dir)
    (runs_dir / drift.run_id / "val" / "forecasts.npz").unlink()
    with pytest.raises(CheckpointError, match="are gone"):
        run_trading(tracker, drift, "val", runs_dir=runs_dir)


def test_data_that_are_no_longer_what_they_were_are_not_scored(tracker, runs_dir, drift):
    for file in (runs_dir / "panels").glob("*.npz"):
        file.unlink()
    with pytest.raises(PanelChanged):
        run_groups(tracker, drift, "val_coverage_80", "item", runs_dir=runs_dir)
    assert run_groups(tracker, drift, "val_pct_mae", "item", runs_dir=runs_dir)  # needs no prices


def test_show_by_and_cost_on_the_command_line(drift, capsys):
    shell = Shell(capsys)
    out = shell("show", drift.run_id, "--by", "regime")
    assert "val_pct_mae" in out
    assert "skill vs naive" in out
    assert "one line alone is luck" in out
    found = json.loads(shell("show", drift.run_id, "--by", "item", "--json"))
    assert [g["key"] for g in found] == list(PANEL.items)
    assert found[0]["lower"] < found[0]["score"] < found[0]["upper"]
    covered = shell("show", drift.run_id, "--by", "lead", "--metric", "val_coverage_80")
    assert "val_coverage_80" in covered
    assert "%" not in covered
    trading = json.loads(shell("show", drift.run_id, "--cost-bps", "0", "--json"))
    assert trading["cost_bps"] == 0
    assert trading["val_turnover"] == pytest.approx(drift.metrics["val_turnover"])
    assert "basis points" in shell("show", drift.run_id, "--cost-bps", "12.5")


def test_contradicting_questions_are_refused(drift, capsys):
    shell = Shell(capsys)
    assert "--by says" not in shell.error("show", drift.run_id, "--metric", "val_r2", code=2)
    shell.error("show", drift.run_id, "--by", "item", "--cost-bps", "1", code=2)
    assert "did you mean" in shell.error("show", drift.run_id, "--by", "itme", code=2)
    assert "verdict" in shell.error(
        "show", drift.run_id, "--by", "item", "--metric", "test_pct_mae", code=2
    )


def test_undefined_scores_are_null_wherever_a_run_is_printed_as_json(tracker, drift, capsys):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    naive = next(r for r in tracker.get_runs() if r.model_name == "last-value")
    assert np.isnan(naive.metrics["val_sharpe"])
    assert naive.json_metrics["val_sharpe"] is None
    assert naive.json_metrics["val_pct_mae"] == naive.metrics["val_pct_mae"]
    shell = Shell(capsys)
    for command in (("show", naive.run_id, "--json"), ("runs", "--json")):
        json.loads(shell(*command), parse_constant=refuse)
    card = best_card(Row(1, naive, 1.0, 0.0, ""), metric="val_pct_mae")
    json.loads(json.dumps(card), parse_constant=refuse)
