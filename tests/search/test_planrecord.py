"""A plan comes back from the database as it was asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.splits import Cut
from foresweep.errors import UsageError
from foresweep.models.base import Resources
from foresweep.records import Sweep
from foresweep.search.plan import ASKED, CUT, SweepPlan, as_record, at_horizons, family_of, plan_of
from foresweep.search.propose.modes import Proposal
from foresweep.search.stage import cut_of
from foresweep.space import Choice, Float, Int, Spaces
from runs import make_sweep

dimensions = st.one_of(
    st.builds(Float, st.just(1e-5), st.floats(1e-3, 1), st.booleans()),
    st.builds(Int, st.just(8), st.integers(16, 64), st.integers(1, 4)),
    st.builds(
        Choice, st.lists(st.one_of(st.integers(), st.text(), st.booleans()), min_size=1).map(tuple)
    ),
)
plans = st.builds(
    SweepPlan,
    models=st.just(("toto", "kronos")),
    mode=st.sampled_from(["smart", "priority"]),
    cut=st.builds(Cut, st.integers(1, 20), st.none() | st.integers(1, 9), seed=st.integers(0, 9)),
    max_runs=st.none() | st.integers(1, 99),
    size=st.none() | st.just("small"),
    pretrained=st.none() | st.text(),
    time_budget_s=st.none() | st.floats(1, 1e6),
    step_budget=st.none() | st.integers(1),
    again=st.booleans(),
    steer_windows=st.none() | st.integers(1, 9999) | st.just("all"),
    resources=st.builds(Resources, micro_batch=st.none() | st.integers(1, 64)),
    spaces=st.builds(
        Spaces,
        st.dictionaries(st.just("toto"), st.text()),
        st.dictionaries(st.just("toto"), st.text()),
        st.dictionaries(st.sampled_from(["lr", "batch_size"]), dimensions),
    ),
    proposals=st.lists(
        st.builds(
            Proposal, st.just("toto"), st.dictionaries(st.just("lr"), st.floats(0, 1)), st.text()
        )
    ).map(tuple),
)


def recorded(plan: SweepPlan, **rest: Any) -> Sweep:
    return make_sweep(plan={ASKED: json.loads(json.dumps(as_record(plan)))}, **rest)


@given(plans)
def test_every_plan_comes_back_as_it_was_asked(plan: SweepPlan) -> None:
    assert plan_of(recorded(plan)) == plan


def test_a_plan_of_before_the_cut_was_one_value_is_read_as_it_was_asked() -> None:
    cut = Cut(3, stride=7, max_context=64, max_windows=900, seed=5)
    plan = SweepPlan(("toto",), cut=cut, max_runs=4)
    asked = as_record(plan)
    asked |= {name: asked["cut"][name] for name in CUT}
    del asked["cut"], asked["steer_windows"]
    there = {"stride": 7, "max_windows": 900, "max_context": 64, ASKED: asked}
    older = replace(make_sweep(plan=json.loads(json.dumps(there)), horizon=3), seed=5)
    assert plan_of(older) == replace(plan, steer_windows="all")  # as it was then
    assert cut_of(older) == cut
    assert cut_of(replace(older, plan=there | {ASKED: as_record(plan)})) == cut


def test_what_a_newer_version_asked_is_refused_by_name() -> None:
    newer = make_sweep(plan={ASKED: as_record(SweepPlan(("toto",))) | {"mood": "good"}})
    with pytest.raises(UsageError, match="mood"):
        plan_of(newer)


def test_a_question_at_several_horizons_is_a_family() -> None:
    plans = at_horizons(SweepPlan(("toto",)), (1, 5, 20))
    assert [p.cut.horizon for p in plans] == [1, 5, 20]
    assert len({p.family for p in plans}) == 1
    sweeps = [
        recorded(p, sweep_id=f"s{p.cut.horizon}", horizon=p.cut.horizon) for p in reversed(plans)
    ]
    other = recorded(SweepPlan(("toto",)), sweep_id="other")
    assert [s.sweep_id for s in family_of(sweeps[0], [other, *sweeps])] == ["s1", "s5", "s20"]
    assert family_of(other, [other, *sweeps]) == [other]


def test_one_horizon_has_no_family_and_none_is_asked_twice() -> None:
    (alone,) = at_horizons(SweepPlan(("toto",)), (5,))
    assert alone == SweepPlan(("toto",))
    with pytest.raises(UsageError, match="each horizon once"):
        at_horizons(SweepPlan(("toto",)), (5, 5))


def test_epochs_have_a_floor_unless_they_are_said_by_name() -> None:
    plan = SweepPlan(("toto",), mode="quick")
    assert plan.step_floor == 200
    said = Spaces(changes={"max_epochs": Choice((2,))})
    assert replace(plan, spaces=said).step_floor == 0
    assert (
        replace(plan, proposals=(Proposal("toto", {"max_epochs": 2}, "by hand"),)).step_floor == 0
    )
