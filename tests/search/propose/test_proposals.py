"""Modes: what they propose, in what order."""

from __future__ import annotations

from pathlib import Path

import pytest

from foresweep.errors import SpaceError, UnknownName, UsageError
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import (
    baseline_proposals,
    expand_models,
    load_space,
    propose,
    space_text,
)
from planted_model import plugin

SCRATCH = {"pretrained": None, "size": "tiny"}


def test_all_stands_for_the_three_families() -> None:
    assert expand_models(["all"]) == ("toto", "kronos", "chronos2")
    assert expand_models(["toto, chronos2", "drift"]) == ("toto", "chronos2", "drift")
    assert expand_models(["Kronos", "all"]) == ("kronos", "toto", "chronos2")


def test_an_unknown_model_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'kronos'"):
        expand_models(["kronoss"])


def test_the_budget_is_handed_round_the_models() -> None:
    found = propose(("toto", "kronos", "chronos2"), "priority", base=SCRATCH, seed=0, count=4)[:4]
    assert [p.model for p in found] == ["toto", "kronos", "chronos2", "toto"]


def test_priority_keeps_the_order_of_the_file() -> None:
    names = [e.name for e in load_space("toto", "scratch").entries["priority"]]
    found = propose(("toto",), "priority", base=SCRATCH, seed=0, count=5)
    assert [p.source for p in found] == [f"priority: {n}" for n in names]


@pytest.mark.parametrize("mode", ["random", "full"])
def test_draws_are_named_by_the_seed(mode: str) -> None:
    first, again, other = (
        propose(("chronos2",), mode, base=SCRATCH, seed=s, count=3) for s in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 3


def test_draws_of_one_model_do_not_depend_on_the_others() -> None:
    alone = propose(("kronos",), "random", base=SCRATCH, seed=3, count=2)
    beside = propose(("toto", "kronos"), "random", base=SCRATCH, seed=3, count=2)
    assert [p.config for p in beside if p.model == "kronos"] == [p.config for p in alone]


def test_the_demo_tries_two_configs_of_each_model() -> None:
    found = propose(("toto", "kronos", "chronos2"), "demo", base=SCRATCH, seed=0, count=5)
    assert sorted(p.model for p in found) == sorted(["toto", "kronos", "chronos2"] * 2)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnknownName, match="quick"):
        propose(("toto",), "quik", base=SCRATCH, seed=0, count=5)


def test_a_baseline_has_no_space_to_copy() -> None:
    with pytest.raises(SpaceError, match="foresweep train"):
        space_text("drift")


def test_every_sweep_brings_the_baselines() -> None:
    assert {p.model for p in baseline_proposals("pct_mae")} >= {
        "last-value",
        "drift",
        "random-walk",
    }


@pytest.mark.parametrize("model", ["toto", "kronos", "chronos2"])
@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_every_entry_says_where_it_comes_from(model: str, start: str) -> None:
    space = load_space(model, start)  # type: ignore[arg-type]
    assert set(space.entries) == {"priority", "quick", "zero-shot"}
    for entries in space.entries.values():
        assert all(len(e.source) > 20 for e in entries)
    assert space.full.size > 1
    assert len(space.space.dimensions) >= 5


def test_random_steps_are_drawn_below_the_cap() -> None:
    found = propose(("chronos2",), "random", base=SCRATCH, seed=0, count=40, step_cap=300)
    steps = [p.config["max_steps"] for p in found]
    assert set(steps) == {200, 250, 300}


WEIGHTS = {"pretrained": "published", "size": None}


def test_untrained_weights_stand_beside_what_is_made_of_them_at_no_cost() -> None:
    found = propose(("toto", "kronos"), "priority", base=WEIGHTS, seed=0, count=5)
    beside = [p for p in found if p.is_companion]
    assert {p.model for p in beside} == {"toto", "kronos"}
    assert all(p.config["finetune"] == "none" and p.is_free for p in beside)
    assert found[-len(beside) :] == tuple(beside)


def test_nothing_stands_beside_models_from_scratch() -> None:
    found = propose(("toto",), "priority", base=SCRATCH, seed=0, count=5)
    assert not any(p.is_companion for p in found)


def test_zero_shot_takes_the_weights_as_they_are() -> None:
    found = propose(("toto", "drift"), "zero-shot", base=WEIGHTS, seed=0, count=5)
    assert {p.config.get("finetune") for p in found if p.model == "toto"} == {"none"}
    assert not any(p.is_free for p in found if p.model == "toto")
    assert [p.source for p in found if p.model == "drift"] == ["baseline"]


def test_zero_shot_from_scratch_is_refused_with_both_ways_out() -> None:
    with pytest.raises(UsageError, match=r"--pretrained.*--mode priority"):
        SweepPlan(models=("toto",), mode="zero-shot").checked()
    SweepPlan(models=("toto",), mode="zero-shot", pretrained="published", size=None).checked()


def test_a_mode_without_configs_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with plugin(tmp_path, space='model = "guest"\n[[quick]]\nname = "a"\nsource = "b"\n'):
        with pytest.raises(SpaceError, match="priority; its space file has: quick"):
            propose(("guest",), "priority", base=SCRATCH, seed=0, count=5)
        with pytest.raises(SpaceError, match="nothing to draw from"):
            propose(("guest",), "random", base=SCRATCH, seed=0, count=5)
        (found,) = propose(("guest",), "quick", base=SCRATCH, seed=0, count=5)
    assert (found.model, found.source) == ("guest", "quick: a")


def test_a_plugin_without_a_space_is_trained_by_hand(tmp_path: Path) -> None:
    with plugin(tmp_path), pytest.raises(SpaceError, match="foresweep train --model guest"):
        propose(("guest",), "priority", base=SCRATCH, seed=0, count=5)


def test_random_contexts_stay_below_the_sweep_s_longest() -> None:
    found = propose(("toto", "kronos"), "random", base=SCRATCH, seed=0, count=20, max_context=160)
    lengths = {p.config["context_length"] for p in found}
    assert max(lengths) == 160
    assert len(lengths) > 2
