"""How far a sweep is, in numbers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from foresweep.cli import live as module
from foresweep.cli.live import Bars, Tally
from foresweep.records import Run, RunState
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.trial import Prepared
from runs import make_run

PLAN = SweepPlan(("toto",), mode="smart", max_runs=6)


def prepared(steps: int | None, model: str = "toto", source: str = "priority: a") -> Prepared:
    config: dict[str, Any] = {} if steps is None else {"max_steps": steps}
    return Prepared(Proposal(model, config, source), config, f"{model}{steps}", "t")


def run(number: int, score: float | None, steps: int = 100, **rest: Any) -> Run:
    made = make_run("toto", number, None, hyperparams={"max_steps": steps}, **rest)
    if score is not None:
        object.__setattr__(made, "metrics", {"tune_pct_mae": score, "tune_skill": 0.01})
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_what_a_search_will_propose_is_taken_to_be_like_its_list() -> None:
    tally = Tally(PLAN)
    tally.planned([prepared(None, "drift", "baseline"), prepared(100), prepared(200)])
    assert (tally.trials_planned, tally.steps_planned) == (6, 1 + 300 + 4 * 150)


def test_the_time_left_is_as_fast_as_it_went(clock: list[float]) -> None:
    tally = Tally(PLAN)
    tally.planned([prepared(100)])
    tally.start(run(1, None))
    assert tally.seconds_left is None
    clock[0] = 10.0
    tally.end(run(1, 2.0))
    assert tally.seconds_left == pytest.approx(50.0)
    tally.start(run(2, None))
    tally.running["toto_002"] = 100
    clock[0] = 12.0
    assert tally.seconds_left == pytest.approx(12 / 200 * 400)


def test_the_best_is_by_tune_and_of_complete_runs() -> None:
    tally = Tally(PLAN)
    for number, score, state in (
        (1, 2.0, RunState.COMPLETE),
        (2, 1.0, RunState.FAILED),
        (3, 1.5, RunState.COMPLETE),
        (4, None, RunState.COMPLETE),
    ):
        tally.start(run(number, None))
        tally.end(run(number, score, state=state))
    assert tally.best is not None
    assert tally.best.run_id == "toto_003"
    assert "best tune pct_mae 1.500" in tally.line()
    assert tally.place() == "[4/4]"


def test_a_trial_that_is_tried_once_more_is_counted_once() -> None:
    tally = Tally(PLAN)
    tally.planned([prepared(100)])
    failed = run(1, None, state=RunState.FAILED)
    tally.end(failed)
    tally.retry(failed)
    tally.end(run(1, 2.0))
    assert (tally.trials_done, tally.steps) == (1, 100)


def test_what_is_said_of_the_whole_sweep_stands_under_the_bars_and_crushes_none() -> None:
    console = Console(width=110, record=True, file=io.StringIO(), force_terminal=True)
    bars = Bars(console)
    bars.add_task("chronos2 random", total=300, loss="5.297", score="1.679", skill="-4.3 %")
    bars.below = "[1/4] trials, " + 12 * "a long name "
    console.print(*bars.get_renderables())
    said = console.export_text()
    assert "loss 5.297" in said
    assert "tune pct_mae 1.679" in said
    assert "[1/4] trials" in said.splitlines()[1]


def test_where_another_objective_steers_the_skill_is_of_that_one() -> None:
    """A pinball sweep once told the skill in pct_mae."""
    tally = Tally(SweepPlan(("toto",), mode="random", objective="pinball", max_runs=2))
    scores = {
        "tune_pct_mae": 2.0,
        "tune_skill": 0.0,
        "tune_pinball": 1.0,
        "tune_pinball_skill": 0.0,
    }
    naive = make_run("last-value", 1, None)
    best = make_run("toto", 2, None, hyperparams={"max_steps": 9})
    for made, found in (
        (naive, scores),
        (best, {**scores, "tune_skill": -0.5, "tune_pinball": 0.8, "tune_pinball_skill": 0.2}),
    ):
        object.__setattr__(made, "metrics", found)
        tally.end(made)
    assert "best tune pinball 0.800 (toto 2, skill +20.0 %)" in tally.line()
    crps = Tally(SweepPlan(("toto",), mode="random", objective="crps", max_runs=2))
    for made, score in ((naive, 4.0), (best, 3.0)):
        object.__setattr__(made, "metrics", {"tune_crps": score, "tune_skill": -0.5})
        crps.end(made)
    assert "skill +25.0 %" in crps.line()  # not scored: from both scores
    sharpe = Tally(SweepPlan(("toto",), mode="random", objective="sharpe", max_runs=2))
    object.__setattr__(best, "metrics", {"tune_sharpe": 0.5, "tune_skill": 0.1})
    sharpe.end(best)
    assert sharpe.line().endswith("best tune sharpe 0.500 (toto 2)")
