"""The report: says what came, failures and all."""

from __future__ import annotations

from dataclasses import replace

from foresweep.records import Run, RunState
from foresweep.reporting.report import markdown_report, md_table
from runs import make_run

RUNS = [
    make_run("last-value", 0, 2.0, skill=0.0),
    make_run("toto", 1, 2.2, skill=-0.1, hyperparams={"lr": 1e-3, "loss_type": "huber"}),
    make_run("toto", 2, 2.1, skill=-0.05, hyperparams={"lr": 1e-4, "loss_type": "huber"}),
    make_run("toto", 3, 2.4, skill=-0.2, hyperparams={"lr": 1e-2, "loss_type": "huber"}),
    make_run("kronos", 4, None, state=RunState.FAILED, error="Traceback\nValueError: loss is nan"),
]


def test_the_report_says_that_nothing_beats_naive() -> None:
    text = markdown_report(RUNS, metric="val_pct_mae")
    assert "Nothing beats naive" in text
    assert "-5.00 %" in text


def test_a_lead_is_shown_with_its_p_value_and_the_number_of_trials() -> None:
    lucky = make_run("toto", 5, 1.9, skill=0.05)
    text = markdown_report([*RUNS, lucky], metric="val_pct_mae")
    assert "+5.00 %" in text
    assert "best of 4" in text
    assert "Nothing beats naive" not in text


def test_the_benchmark_is_named_with_the_skill_against_it() -> None:
    def with_tune(run: Run, loss: float) -> Run:
        return replace(run, metrics={**run.metrics, "tune_pct_mae": loss})

    drift = replace(with_tune(make_run("drift", 7, 1.6), 1.0), source="baseline")
    last, best, *others = (with_tune(r, 2.0) for r in RUNS[:4])
    text = markdown_report([last, drift, best, *others], metric="val_pct_mae")
    assert "The baseline to beat, the best on tune, is `drift`" in text
    assert "-31.25 %" in text.partition("## All models")[0]  # 1 - 2.1 / 1.6
    assert "| against drift |" in text
    assert "baseline to beat" not in markdown_report(RUNS, metric="val_pct_mae")


def test_failed_runs_are_listed_with_their_cause() -> None:
    assert "ValueError: loss is nan" in markdown_report(RUNS, metric="val_pct_mae")


def test_no_test_score_can_be_in_a_report() -> None:
    assert "test_" not in markdown_report(RUNS, metric="val_pct_mae")


def test_impact_is_counted_by_value_with_a_rank() -> None:
    section = markdown_report(RUNS, metric="val_pct_mae").partition("## Impact of each")[2]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[2:5] == [
        "| lr | 0.0001 | 1 | 2.1000 | - | 2.1000 | 2.1000 | 1.00 |",
        "|  | 0.001 | 1 | 2.2000 | - | 2.2000 | 2.2000 |  |",
        "|  | 0.01 | 1 | 2.4000 | - | 2.4000 | 2.4000 |  |",
    ]
    assert "huber" not in section  # the same in every run


def test_a_pipe_in_a_cell_does_not_break_the_table() -> None:
    assert md_table(["a"], [["x|y"]])[2] == "| x\\|y |"
