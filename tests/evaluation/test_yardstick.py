"""The rules of judgement: last-value, what is to beat, what is evidence, what is no skill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.evaluation.yardstick import (
    alarm,
    baselines,
    benchmark,
    choose_benchmark,
    effective_origins,
    equals_last_value,
    implausible,
    last_value,
    no_skill,
)
from foresweep.metrics import METRICS, QUANTILE_METRICS, TRADING_METRICS
from foresweep.records import Run, RunState
from panels import make_panel
from runs import make_run


def baseline(model: str, number: int, tune: float | None = 1.0, **changed: Any) -> Run:
    run = make_run(model, number, 1.0)
    scores = {} if tune is None else {"tune_pct_mae": tune}
    said = {"source": "baseline", "config_hash": f"c{number}"} | changed
    return replace(run, metrics=dict(run.metrics) | scores, **said)


SCALED = baseline("last-value", 0, hyperparams={"fit_scale": True}, source="by hand")
PLAIN = baseline("last-value", 3)


def test_last_value_is_the_uncalibrated_one_of_the_sweep_whatever_came_first() -> None:
    by_hand = baseline("last-value", 1, source="quick: last-value")
    others = [
        baseline("last-value", 2, hyperparams={"isotonic": True}),
        baseline("last-value", 2, state=RunState.FAILED),
        baseline("last-value", 2, source="reproduces: run"),
        baseline("drift", 2),
    ]
    assert last_value([SCALED, by_hand, PLAIN, *others]) is PLAIN
    assert last_value([SCALED, by_hand, *others]) is by_hand
    assert last_value([SCALED, *others]) is None


def test_a_calibrated_last_value_never_bears_its_name() -> None:
    assert baselines([SCALED, PLAIN]) == {
        "last-value": PLAIN,
        f"last-value, {SCALED.run_id}": SCALED,
    }
    assert "last-value" not in baselines([SCALED])


def test_the_benchmark_is_the_best_on_tune_and_ties_go_to_last_value() -> None:
    runs = [baseline("drift", 1, 0.9), PLAIN, baseline("har", 2, None)]
    assert benchmark(runs, "pct_mae") == ("drift", runs[0])
    assert benchmark([baseline("drift", 1), PLAIN], "pct_mae") == ("last-value", PLAIN)
    assert benchmark([baseline("har", 2, None)], "pct_mae") is None
    assert benchmark([make_run("toto", 1, 0.1)], "pct_mae") is None
    assert choose_benchmark({"b": 0.1, "a": 0.1, "last-value": 0.2}) == "b"
    higher = METRICS["skill"].badness
    assert choose_benchmark({"b": 0.1, "last-value": 0.2}, higher) == "last-value"


def test_effective_origins_of_a_plan_are_those_of_the_split() -> None:
    split = make_split(make_panel(2, 900), Cut(5, stride=2))
    for name in ("tune", "val", "test"):
        part = split.part(name)
        plan = {"origins": len(part.origins), "stride": part.stride, "bars": part.num_bars}
        assert effective_origins(plan, 5) == part.effective_origins(5) < len(part.origins)


@pytest.mark.parametrize(
    ("count", "stride", "found"), [(0, 5, 0), (1, 5, 1), (9, 5, 9), (9, 1, 2.6)]
)
def test_without_bars_the_origins_themselves_span_the_part(count, stride, found) -> None:
    assert effective_origins({"origins": count, "stride": stride}, 5) == pytest.approx(found)


def test_a_trained_run_with_the_medians_of_last_value_is_it_wherever_points_count() -> None:
    run = make_run("toto", 1, 2.0, skill=1e-13)
    same = {m for m in METRICS if equals_last_value(run, "val", m)}
    assert same == set(METRICS) - {*QUANTILE_METRICS, *TRADING_METRICS}
    assert not equals_last_value(make_run("toto", 1, 2.0, skill=1e-9), "val", "pct_mae")
    assert not equals_last_value(PLAIN, "val", "pct_mae")
    assert not no_skill(None)


def test_a_skill_above_fifteen_percent_is_an_alarm() -> None:
    assert implausible(0.1501)
    assert not any(implausible(x) for x in (None, float("nan"), 0.15, -1.0))
    assert alarm("r", 0.15) is None
    assert "foresweep doctor --leaks r" in str(alarm("r", 0.2))
