"""Pruners: hopeless trials end early, good ones do not, and each pruner sees its own series."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foresweep.errors import UnknownName, UsageError
from foresweep.search.engines.base import Progress
from foresweep.search.plan import SweepPlan
from foresweep.search.running.pruning import Hyperband, Pruners, Racing

ORIGINS = np.random.default_rng(0).uniform(0.5, 2.0, 40)


def race(racing: Racing, trial: int, factor: float, *, steps: int = 8) -> list[str | None]:
    """Show a trial whose losses are `factor` times the common ones, and end it as complete."""
    noise = np.random.default_rng(trial).normal(0, 0.05, 40)
    answers = [
        racing.should_prune(trial, s, {}, {"pinball": tuple(factor * ORIGINS + noise)})
        for s in range(1, steps + 1)
    ]
    racing.end(trial, factor)
    return answers


def judged(racing: Racing, trial: int, losses: tuple[float, ...], *, step: int = 8) -> str | None:
    """What is said of losses at a scoring that is not the trial's first."""
    racing.should_prune(trial, 1, {}, {"pinball": losses})
    return racing.should_prune(trial, step, {}, {"pinball": losses})


def test_a_trial_that_is_worse_at_most_origins_loses_the_race() -> None:
    racing = Racing("pinball")
    assert race(racing, 1, 1.0) == 8 * [None]  # nobody to race against yet
    first, *reasons = race(racing, 2, 1.2)
    assert first is None
    assert all(r and "20.0 %" in r.replace("19.9", "20.0").replace("20.1", "20.0") for r in reasons)
    assert racing.best_badness == 1.0


def test_a_first_scoring_ends_nothing_however_bad() -> None:
    """Who learns fast need not end well: a slow start may still win."""
    racing = Racing("pinball")
    race(racing, 1, 1.0)
    assert racing.should_prune(2, 1, {}, {"pinball": tuple(9 * ORIGINS)}) is None
    assert racing.should_prune(2, 1, {}, {"pinball": tuple(9 * ORIGINS)}) is None  # the same again
    assert racing.should_prune(2, 2, {}, {"pinball": tuple(9 * ORIGINS)}) is not None


def test_an_equal_or_better_trial_stays_in_the_race() -> None:
    racing = Racing("pinball")
    race(racing, 1, 1.0)
    assert race(racing, 3, 1.0) == 8 * [None]
    assert race(racing, 4, 0.9) == 8 * [None]
    assert racing.best_badness == 0.9


def test_the_race_is_at_equal_training() -> None:
    """The best run was worse than this at the same step: its final losses do not count yet."""
    racing = Racing("pinball")
    for step, factor in ((10, 3.0), (20, 1.0)):
        racing.should_prune(1, step, {}, {"pinball": tuple(factor * ORIGINS)})
    racing.end(1, 1.0)
    assert racing.should_prune(2, 5, {}, {"pinball": tuple(9 * ORIGINS)}) is None  # not scored yet
    assert racing.should_prune(2, 15, {}, {"pinball": tuple(2 * ORIGINS)}) is None
    assert racing.should_prune(2, 20, {}, {"pinball": tuple(2 * ORIGINS)}) is not None


def test_one_wild_origin_decides_no_race() -> None:
    """The mean is far above, and yet most origins are better."""
    racing = Racing("pinball")
    race(racing, 1, 1.0)
    losses = 0.95 * ORIGINS
    losses[0] = 1000.0
    assert judged(racing, 2, tuple(losses)) is None


def test_origins_without_a_loss_are_left_out_of_the_race() -> None:
    racing = Racing("pinball")
    race(racing, 1, 1.0)
    losses = 2 * ORIGINS
    losses[:3] = np.nan
    assert judged(racing, 2, tuple(losses)) is not None
    losses[:35] = np.nan  # five origins say nothing
    assert judged(racing, 3, tuple(losses)) is None


def halved(objective: str, scores: list[float]) -> list[int]:
    """Steps that each trial was given out of 80, scored every 10."""
    pruner, given = Hyperband(objective, 80), []
    for trial, value in enumerate(scores):
        for step in range(10, 81, 10):
            if pruner.should_prune(trial, step, {f"tune_{objective}": value}, {}):
                break
        given.append(step)
    return given


@pytest.mark.parametrize(("objective", "sign"), [("pinball", 1), ("directional_accuracy", -1)])
def test_hyperband_spends_steps_on_the_better_trials(objective: str, sign: int) -> None:
    badness = np.random.default_rng(3).permutation(30) / 10
    given = np.array(halved(objective, (sign * badness).tolist()))
    assert given.sum() < 0.6 * 30 * 80
    assert given[badness.argmin()] == 80
    assert given[badness > 1.5].mean() < given[badness <= 1.5].mean()


def test_a_score_that_is_no_number_ends_a_trial_at_its_first_rung() -> None:
    pruner = Hyperband("pinball", 80)
    said = [pruner.should_prune(1, s, {"tune_pinball": math.nan}, {}) for s in range(10, 81, 10)]
    assert any(said)


def test_a_step_that_a_resumed_trial_reports_again_is_answered_as_before() -> None:
    """Optuna would warn; and a second value must move nobody: the first was held against others."""
    values = np.random.default_rng(3).permutation(9) / 10
    once, again = Hyperband("pinball", 80), Hyperband("pinball", 80)
    for trial, value in enumerate(values.tolist()):
        for step in range(10, 81, 10):
            said = once.should_prune(trial, step, {"tune_pinball": value}, {})
            assert again.should_prune(trial, step, {"tune_pinball": value}, {}) == said
            assert again.should_prune(trial, step, {"tune_pinball": 9.0}, {}) == said
            assert (
                again.should_prune(trial, 10, {"tune_pinball": 0.0}, {}) == again.answers[trial, 10]
            )
            if said:
                break
    assert any(once.answers.values())
    first, second = ([t.intermediate_values for t in p.study.trials] for p in (once, again))
    assert first == second


def test_a_resumed_trial_races_with_what_it_reports_last() -> None:
    racing = Racing("pinball")
    race(racing, 1, 1.0)
    worse, better = tuple(2 * ORIGINS), tuple(0.9 * ORIGINS)
    assert judged(racing, 2, worse, step=4) is not None
    assert racing.should_prune(2, 4, {}, {"pinball": better}) is None
    assert racing.running[2] == {1: worse, 4: better}
    racing.end(2, 0.9)
    assert racing.best is not None
    assert racing.best.until(8) == better


def test_every_pruner_hears_of_every_scoring_whoever_speaks_first() -> None:
    hyperband, racing = Hyperband("pinball", 80), Racing("pinball")
    both = Pruners(hyperband, racing)
    race(racing, 1, 1.0)
    for step in (10, 20):
        answer = both.ask(2, Progress(step, {"tune_pinball": 2.0}, {"pinball": tuple(2 * ORIGINS)}))
    assert answer is not None
    assert racing.running[2] == {10: tuple(2 * ORIGINS), 20: tuple(2 * ORIGINS)}
    assert hyperband.trials[2].number == 0


def test_nothing_is_pruned_unless_asked() -> None:
    assert SweepPlan(models=("toto",), mode="smart", objective="pinball").pruners == ()
    assert SweepPlan(models=("toto",), pruning="racing").pruners == ("racing",)
    assert SweepPlan(models=("toto",), pruning="both").pruners == ("hyperband", "racing")


def test_a_race_without_losses_by_origin_is_refused() -> None:
    with pytest.raises(UsageError, match="rmse_pct has no loss by origin"):
        SweepPlan(models=("toto",), objective="rmse_pct", pruning="both").checked()
    with pytest.raises(UnknownName, match="did you mean 'racing'"):
        SweepPlan(models=("toto",), pruning="racin").checked()
