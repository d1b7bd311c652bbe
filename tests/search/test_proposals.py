"""Modes: what they propose, in what order."""

from __future__ import annotations

import pytest

from foresweep.errors import SpaceError, UnknownName
from foresweep.search.proposals import (
    baseline_proposals,
    expand_models,
    load_space,
    propose,
    space_text,
)

SCRATCH = {"pretrained": None, "size": "tiny"}


def test_all_stands_for_the_three_families() -> None:
    assert expand_models(["all"]) == ("toto", "kronos", "chronos2")
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
    assert {p.model for p in baseline_proposals()} >= {"last-value", "drift", "random-walk"}


@pytest.mark.parametrize("model", ["toto", "kronos", "chronos2"])
@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_every_entry_says_where_it_comes_from(model: str, start: str) -> None:
    space = load_space(model, start)  # type: ignore[arg-type]
    assert set(space.entries) == {"priority", "quick"}
    for entries in space.entries.values():
        assert all(len(e.source) > 20 for e in entries)
    assert space.full.size > 1
    assert len(space.space.dimensions) >= 5


def test_random_steps_are_drawn_below_the_cap() -> None:
    found = propose(("chronos2",), "random", base=SCRATCH, seed=0, count=40, step_cap=300)
    steps = [p.config["max_steps"] for p in found]
    assert max(steps) <= 300
    assert len(set(steps)) > 3
