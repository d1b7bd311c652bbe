"""What the figures of benchmarks/search_efficiency.py stand on: the books of a replayed search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import search_curves
import search_efficiency
import search_functions
import search_peers
import search_promotion
import search_replay

CURVES = search_functions.made_up("bowl")
WHOLE = CURVES.steps[-1]


def test_a_proposal_is_answered_by_the_nearest_config_that_was_not_tried() -> None:
    ledger = search_replay.Ledger(CURVES, budget=WHOLE)
    assert ledger.nearest(CURVES.configs[7]) == 7
    every = [ledger.nearest(CURVES.configs[7]) for _ in range(len(CURVES) - 1)]
    assert len({7, *every}) == len(CURVES), "no config is tried twice"
    with pytest.raises(search_replay.OutOfSteps):
        ledger.nearest(CURVES.configs[7])


def test_values_without_an_order_are_as_far_apart_as_the_ends_of_a_range() -> None:
    space = search_curves.recorded_space()
    config = space.sample(np.random.default_rng(0))
    ends = [
        ({"target": "return"}, {"target": "overlapping"}),
        ({"lr": 1e-4}, {"lr": 5e-3}),
        ({"batch_size": 8}, {"batch_size": 32}),
        ({"context_length": 64}, {"context_length": 192}),
    ]
    for one, other in ends:
        both = [search_curves.coordinates(space, {**config, **c}) for c in (one, other)]
        assert np.linalg.norm(both[0] - both[1]) == pytest.approx(1)


def test_the_sweep_file_beside_it_is_of_the_same_space() -> None:
    from foresweep.space import parse_space_file

    text = Path(search_curves.__file__).with_name("search_space.toml").read_text()
    found = parse_space_file(text, "scratch").space.dimensions
    recorded = search_curves.recorded_space().dimensions
    assert {n: d for n, d in found.items() if n in recorded} == recorded
    rest = {n: d.values for n, d in found.items() if n not in recorded}  # type: ignore[union-attr]
    assert rest == {n: (value,) for n, value in search_curves.SETTINGS["chronos2"].fixed.items()}


@pytest.mark.parametrize(
    ("path", "model", "count"),
    [(search_efficiency.CURVES, "chronos2", 221), (search_efficiency.OTHERS, "toto", 300)],
)
def test_the_recordings_are_there_for_everybody(path: Path, model: str, count: int) -> None:
    curves = search_curves.load(path)
    assert (curves.model, len(curves)) == (model, count)
    assert curves.tune.shape == curves.val.shape == (count, 8)
    assert curves.steps[-1] == search_curves.SETTINGS[model].fixed["max_steps"]
    assert np.allclose(curves.origins.mean(axis=2), curves.tune, rtol=1e-3)
    assert set(curves.about) >= {"panel_hash", "versions", "last_value", "configs"}


def test_a_stopped_training_costs_its_steps_and_is_no_incumbent() -> None:
    ledger = search_replay.Ledger(CURVES, budget=3 * WHOLE)
    assert ledger.train(0, search_replay.never)
    assert not ledger.train(1, lambda index, k: k == 1)
    assert ledger.spent == WHOLE + WHOLE // 4
    assert [spent for spent, _, _ in ledger.history] == [WHOLE]
    assert ledger.train(2, lambda index, k: k == 7), "the last scoring ends nothing"
    assert ledger.finished == 2


def test_a_training_that_the_steps_do_not_pay_for_is_not_finished() -> None:
    ledger = search_replay.searched(search_replay.random_search, CURVES, 3 * WHOLE - 1, seed=0)
    assert (ledger.trials, ledger.finished) == (3, 2)
    over = ledger.over(np.array([0, WHOLE - 1, WHOLE, 3 * WHOLE]))
    assert np.isinf(over[:, :2]).all()
    assert over[0, 3] == min(over[0, 2], ledger.history[-1][1])


def test_who_waits_goes_on_where_it_stood_and_the_sampler_hears_how_far_all_came() -> None:
    told: dict[int, Any] = {}

    def make(curves: Any, seed: int) -> Any:
        sampler = search_replay.tpe(curves, seed)
        keep = sampler._frozen
        sampler._frozen = lambda one: (told.update({one.number: one}), keep(one))[1]  # type: ignore[method-assign]
        return sampler

    method = search_promotion.Promoting(sampler=make)
    ledger = search_replay.searched(method, CURVES, 6 * WHOLE, seed=0)
    assert ledger.finished >= 1
    given = {n: len(t.series) for n, t in told.items() if t.state == "waiting"}
    assert set(given.values()) <= {1, 2, 4}
    paid = sum(given.values()) + 8 * ledger.finished
    assert 6 * 8 - 8 <= paid <= 6 * 8, "no step is paid twice"


def test_optuna_is_told_the_configs_that_were_recorded() -> None:
    from optuna.pruners import NopPruner

    seen: dict[int, dict[str, float]] = {}

    class Spy(NopPruner):
        def prune(self, study: Any, trial: Any) -> bool:
            seen[trial.number] = study.trials[-1].params
            return False

    method = search_peers.Optuna(lambda scorings: Spy())
    search_replay.searched(method, CURVES, 4 * WHOLE, seed=0)
    assert len(seen) == 4
    assert all(params in CURVES.configs for params in seen.values())


def test_our_search_is_told_what_was_recorded_and_how_far_it_came() -> None:
    told: list[Any] = []

    def make(curves: Any, seed: int) -> Any:
        sampler = search_replay.tpe(curves, seed)
        keep = sampler.tell
        sampler.tell = lambda one: (told.append(one), keep(one))  # type: ignore[method-assign]
        return sampler

    method = search_replay.Ours(sampler=make, racing=search_replay.RACE)
    search_replay.searched(method, CURVES, 12 * WHOLE, seed=0)
    assert all(t.config in CURVES.configs for t in told)
    ends = {t.state.value for t in told}
    assert ends == {"complete", "pruned"}
    assert all(bool(t.scores) == (t.state == "complete") for t in told)
    assert all(bool(t.series) == (t.state == "pruned") for t in told)


def test_a_goal_is_reached_where_a_curve_stays_below_it() -> None:
    share = search_efficiency.share
    assert share(np.array([np.inf, 2.0, 1.0, 1.0]), 1.0) == 0.75
    assert share(np.array([1.0, 2.0, 1.0, 1.0]), 1.0) == 0.75
    assert share(np.array([1.0, 1.0, 1.0, 1.0]), 1.0) == 0.25
    assert share(np.array([1.0, 1.0, 1.0, 2.0]), 1.0) == np.inf


def test_a_recording_reads_back_with_its_broken_trainings(tmp_path: Path) -> None:
    space = search_curves.recorded_space()
    configs = [space.sample(np.random.default_rng(k)) for k in range(2)]
    losses = np.random.default_rng(0).uniform(0.2, 3, size=(8, 5))
    lines = [
        {"config": c, "seconds": 1.5, "tune": losses[:n].mean(axis=1).tolist()}
        | {"val": losses[:n, 0].tolist(), "origins": losses[:n].tolist()}
        for c, n in zip(configs, (8, 2), strict=True)
    ]
    path = tmp_path / "curves.npz"
    path.write_bytes(search_curves.packed({"panel": "demo"}, lines))
    curves = search_curves.load(path)
    assert curves.configs == tuple(configs)
    assert (curves.about["panel"], len(curves.steps)) == ("demo", 8)
    assert np.abs(curves.origins[0] / losses - 1).max() < 2**-14
    assert np.isnan(curves.tune[1, 2:]).all()
    assert np.isfinite(curves.tune[1, :2]).all()
    ledger = search_replay.Ledger(curves, budget=10**6)
    assert not ledger.train(1, search_replay.never)
    assert ledger.spent == curves.steps[2]
