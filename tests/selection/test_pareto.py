"""Several objectives: who is on the front, where its knee is, and who has no place."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foresweep.metrics import METRICS
from foresweep.records import Run, RunState
from foresweep.selection.pareto import Array, dominating, knee, pareto
from runs import make_run

HAND = np.array(
    [
        [1.0, 10.0],  # an end: z = (0, 1)
        [2.0, 4.0],  # z = (0.25, 0.25): 0.5 / sqrt(2) below the line
        [3.0, 3.0],  # z = (0.5, 0.125): 0.375 / sqrt(2) below
        [5.0, 2.0],  # the other end: z = (1, 0)
        [5.0, 4.0],  # dominated by the second, the third and the fourth
    ]
)


def test_a_front_worked_by_hand() -> None:
    assert dominating(HAND).tolist() == [0, 0, 0, 0, 3]
    assert knee(HAND) == 1


def test_the_knee_is_where_the_distance_below_the_line_is_largest() -> None:
    """Against the textbook's distance of a point from the line through two others."""
    front = np.array([[0.0, 8.0], [1.0, 5.0], [2.0, 2.5], [4.0, 1.0], [6.0, 0.0]])
    scaled = front / [6.0, 8.0]
    (x1, y1), (x2, y2) = scaled[0], scaled[-1]
    below = [
        abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / math.hypot(x2 - x1, y2 - y1)
        for x, y in scaled
    ]
    assert knee(front) == int(np.argmax(below)) == 2


@pytest.mark.parametrize(
    "costs",
    [
        [],
        [[1.0, 1.0]],
        [[0.0, 1.0], [1.0, 0.0]],  # both are ends
        [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]],  # on the line
        [[0.0, 1.0], [0.6, 0.7], [1.0, 0.0]],  # above it
        [[1.0, 2.0], [1.0, 2.0]],  # equal
    ],
)
def test_without_a_run_below_the_line_there_is_no_knee(costs: list[list[float]]) -> None:
    assert knee(np.array(costs).reshape(len(costs), 2)) is None


def test_three_objectives_have_a_plane_through_the_mean_height_of_the_ends() -> None:
    """Ends (0, 1, 1), (1, 0, 1) and (1, 1, 0) stand at sum 2; (0.4, 0.4, 0.4) at 1.2."""
    ends = [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    assert knee(np.array([*ends, [0.6, 0.5, 0.6], [0.4, 0.4, 0.4]])) == 4
    assert knee(np.array([*ends, [0.7, 0.7, 0.7]])) is None
    shared = [[0.0, 1.0, 0.5], [0.0, 0.6, 1.0], [1.0, 0.0, 0.5], [0.5, 1.0, 0.0]]
    assert knee(np.array(shared)) is None  # of two best in the first the lower one is its end


COSTS = st.integers(2, 3).flatmap(
    lambda m: st.integers(1, 8).flatmap(
        lambda n: arrays(float, (n, m), elements=st.integers(0, 6).map(float))
    )
)


@given(COSTS)
def test_the_front_is_what_nothing_dominates_and_dominates_all_the_rest(costs: Array) -> None:
    counts = dominating(costs)
    for k, row in enumerate(costs):
        by = [o for o in costs if (o <= row).all() and (o < row).any()]
        assert counts[k] == len(by)
    front = costs[counts == 0]
    assert len(front)
    for row in costs[counts > 0]:
        assert any((f <= row).all() for f in front)


@given(COSTS, st.data())
def test_units_order_and_dominated_runs_do_not_move_the_knee(
    costs: Array, data: st.DataObject
) -> None:
    found = knee(costs)
    num, width = costs.shape
    factors = data.draw(st.lists(st.sampled_from([0.25, 1.0, 8.0]), min_size=width, max_size=width))
    assert knee(costs * factors + 3.0) == found
    assert knee(np.vstack([costs, costs.max(axis=0) + 1])) == found
    columns = data.draw(st.permutations(range(width)))
    rows = data.draw(st.permutations(range(num)))
    moved = knee(costs[rows][:, columns])
    if found is None:
        assert moved is None
    else:
        assert dominating(costs)[found] == 0
        assert moved is not None
        # of equally distant rows the first: another order may name another
        assert dominating(costs)[rows[moved]] == 0


def made(number: int, mae: float, sharpe: float | None, **changed: object) -> Run:
    run = make_run("toto", number, mae, skill=0.01)
    scores = {"val_sharpe": math.nan if sharpe is None else sharpe, "tune_pct_mae": mae}
    return replace(run, metrics={**run.metrics, **scores}, **changed)


def test_each_metric_goes_its_own_way() -> None:
    """Less error and more Sharpe are better; of coverage what is near to 0.8."""
    runs = [made(1, 1.0, 0.1), made(2, 2.0, 0.5), made(3, 2.5, 0.4)]
    found = pareto(runs, "pct_mae,sharpe")
    assert found is not None
    assert [(p.run.run_id[-1], p.word) for p in found.points] == [
        ("1", "front"), ("2", "front"), ("3", "dominated by 1"),
    ]  # fmt: skip
    near = [replace(r, metrics={**r.metrics, "val_coverage_80": c})
            for r, c in zip(runs, (0.95, 0.6, 0.81), strict=True)]  # fmt: skip
    found = pareto(near, "pct_mae,coverage_80")
    assert found is not None
    assert [p.run.run_id[-1] for p in found.front] == ["1", "3"]


def test_the_knee_is_named_and_the_front_stands_first() -> None:
    runs = [made(4, 5.0, -4.0), *(made(k, *(row * [1, -1])) for k, row in enumerate(HAND[:4]))]
    found = pareto(runs, "pct_mae,sharpe")
    assert found is not None
    assert [p.word for p in found.points] == ["front", "knee", "front", "front", "dominated by 3"]
    assert found.knee is not None
    assert found.knee.run.run_id == "toto_001"
    assert found.metrics == ("val_pct_mae", "val_sharpe")


def test_a_score_that_is_undefined_is_shown_as_such_and_dominates_nobody() -> None:
    found = pareto([made(1, 0.5, None), made(2, 1.0, 0.1)], "pct_mae,sharpe")
    assert found is not None
    assert [(p.run.run_id[-1], p.word) for p in found.points] == [
        ("2", "front"), ("1", "sharpe undefined"),
    ]  # fmt: skip
    assert found.points[1].scores == (0.5, None)


def test_who_is_compared_trained_complete_configs_by_their_median_seed() -> None:
    kept = made(1, 1.0, 0.1)
    naive = replace(make_run("last-value", 9, 0.1), metrics={"val_pct_mae": 0.1})
    seeds = [made(k, m, s, config_hash="c", seed=k) for k, m, s in
             [(3, 0.2, 9.0), (4, 0.5, 0.2), (5, 0.9, 0.0)]]  # fmt: skip
    others = [
        made(6, 0.0, 9.0, state=RunState.FAILED),
        made(7, 0.0, 9.0, source=f"reproduces: {kept.run_id}"),
    ]
    found = pareto([naive, kept, *seeds, *others], "pct_mae,sharpe")
    assert found is not None
    assert [p.run.run_id[-1] for p in found.points] == ["4", "1"]
    assert found.naive == (0.1, None)


def test_last_value_in_disguise_has_no_place() -> None:
    same = made(1, 1.0, 0.1)
    same = replace(same, metrics={**same.metrics, "val_skill": 0.0, "val_pinball": 1.0})
    found = pareto([same], "pct_mae,sharpe")
    assert found is not None
    assert [p.word for p in found.points] == ["equals last-value"]
    found = pareto([same], "pinball,sharpe")
    assert found is not None
    assert [p.word for p in found.points] == ["front"]


def test_one_objective_has_no_front() -> None:
    assert pareto([made(1, 1.0, 0.1)], "pct_mae") is None
    assert pareto([made(1, 1.0, 0.1)], "my own,score") is None


def test_the_knee_does_not_depend_on_which_objective_is_named_first() -> None:
    runs = [made(k, *(row * [1, -1])) for k, row in enumerate(HAND)]
    names = {
        found.knee.run.run_id
        for order in permutations(("pct_mae", "sharpe"))
        if (found := pareto(runs, ",".join(order))) and found.knee
    }
    assert names == {"toto_001"}
    assert METRICS["sharpe"].higher_is_better
