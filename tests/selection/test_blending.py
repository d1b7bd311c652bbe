"""Weights are fitted on tune alone, and a half of tune is never scored by its own fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import NotEnoughData
from foresweep.evaluation.backtest import forecast_part, last_value, score_part
from foresweep.models.base import DEFAULT_LEVELS, Array, Forecast
from foresweep.selection.ensembling import Candidate, Mixer
from panels import make_panel

PANEL = make_panel(4, 700, seed=2)
SPLIT = make_split(PANEL, Cut(4, stride=2))
TUNE = Windows(PANEL, SPLIT, SPLIT.part("tune"))
EVERY = np.ones(len(TUNE), dtype=bool)
NAIVE = forecast_part(last_value(SPLIT), TUNE).values
TRUTH = TUNE.labels[:, :, None]


def bench(forecasts: Mapping[str, Array], *, naive=("naive",), **kwargs) -> Mixer:
    def losses(values: Array) -> Array:
        panel = score_part(Forecast(values, DEFAULT_LEVELS), TUNE).losses.losses["pinball"]
        return panel[TUNE.origin, TUNE.column]

    candidates = tuple(Candidate(n, n in naive, losses(v)) for n, v in forecasts.items())
    said = {"metric": "pinball", "method": "greedy", "top_k": 5} | kwargs
    return Mixer(TUNE, candidates, forecasts.__getitem__, DEFAULT_LEVELS, **said)


def noisy(seed: int, size: float = 0.01) -> Array:
    """The truth with an error of its own for every window, and the naive spread."""
    error = np.exp(np.random.default_rng(seed).normal(0, size, (len(TUNE), 1, 1)))
    return NAIVE / NAIVE[..., 4:5] * TRUTH * error


def test_independent_errors_are_averaged_and_the_mix_beats_each_member() -> None:
    made = bench({"a": noisy(1), "b": noisy(2), "naive": NAIVE})
    weights = made.fit(EVERY)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["a"] == pytest.approx(0.5, abs=0.15)
    assert weights["b"] == pytest.approx(0.5, abs=0.15)
    mixed = made.loss(made.mixed(weights, EVERY), EVERY)
    assert mixed < 0.9 * min(made.loss(noisy(1), EVERY), made.loss(noisy(2), EVERY))


def test_a_member_that_only_adds_noise_gets_no_weight() -> None:
    assert "bad" not in bench({"a": noisy(1), "b": noisy(2), "bad": noisy(3, 0.2)}).fit(EVERY)


def test_only_the_top_k_trained_ones_take_part_and_every_baseline() -> None:
    found = {"a": noisy(1), "b": noisy(2, 0.02), "c": noisy(3, 0.03), "naive": NAIVE}
    assert set(bench(found, top_k=1).pool(EVERY)) == {"a", "naive"}
    assert set(bench(found, top_k=2).pool(EVERY)) == {"a", "b", "naive"}


def test_mean_and_median_take_the_best_baseline_alone_at_equal_weights() -> None:
    found = {"a": noisy(1), "naive": NAIVE, "worse": NAIVE * 1.05}
    weights = bench(found, naive=("naive", "worse"), method="mean").fit(EVERY)
    assert weights == {"a": 0.5, "naive": 0.5}


def test_the_first_pick_is_the_best_alone_so_no_mix_is_worse_on_what_it_was_fitted_to() -> None:
    found = {"a": noisy(1), "b": noisy(2, 0.05), "naive": NAIVE}
    made = bench(found)
    alone = min(made.loss(v, EVERY) for v in found.values())
    assert made.loss(made.mixed(made.fit(EVERY), EVERY), EVERY) <= alone


def test_each_half_of_tune_is_mixed_by_what_was_fitted_on_the_other_alone() -> None:
    late = TUNE.origin >= (len(TUNE.part.origins) + 1) // 2
    ours, theirs = noisy(1), noisy(2)
    first = {
        "a": np.where(late[:, None, None], ours, theirs * 1.2),  # good late, bad early
        "b": np.where(late[:, None, None], ours * 1.2, theirs),
    }
    made = bench(first, naive=())
    crossed = made.cross_fitted().values
    np.testing.assert_allclose(crossed[~late], first["a"][~late])  # what late found best
    np.testing.assert_allclose(crossed[late], first["b"][late])


def test_windows_whose_labels_reach_into_the_scored_half_are_not_fitted_on() -> None:
    late = TUNE.origin >= (len(TUNE.part.origins) + 1) // 2
    seen: list[np.ndarray] = []

    class Spy(Mixer):
        def fit(self, rows):
            seen.append(rows)
            return super().fit(rows)

    plain = bench({"a": noisy(1), "b": noisy(2)}, naive=())
    spy = Spy(*(getattr(plain, f) for f in plain.__dataclass_fields__))
    spy.cross_fitted()
    first, last = TUNE.label_span
    for scored, rows in zip((~late, late), seen, strict=True):
        assert rows.any()
        assert not (rows & scored).any()
        overlap = (last >= first[scored].min()) & (first <= last[scored].max())
        assert not (rows & overlap).any()
        assert (overlap & ~scored).any(), "nothing overlaps: the test shows nothing"


def test_without_a_clear_window_it_says_what_to_do() -> None:
    with pytest.raises(NotEnoughData, match="--method median"):
        bench({"a": noisy(1), "b": noisy(2)}).fit(np.zeros(len(TUNE), dtype=bool))
