"""Quantiles of Toto's mixtures are exact; forecasts are made of them unless paths are needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from foresweep.models.base import DEFAULT_LEVELS, Levels
from foresweep.models.toto.decoding import draw
from foresweep.models.toto.network import Mixture
from foresweep.models.toto.quantiles import quantiles
from toto_tiny import context_of, predictor_of, resolved

TAILS: Levels = (1e-4, 0.01, *DEFAULT_LEVELS, 0.99, 1 - 1e-4)


def mixtures(num: int, wild: float, components: int = 4, seed: int = 0) -> Mixture:
    """[num, components], the further apart and the more unlike in width the larger `wild`."""
    generator = torch.Generator().manual_seed(seed)
    df, loc, scale, logits = wild * torch.randn(4, num, components, generator=generator)
    soft = torch.nn.functional.softplus
    return Mixture(2 + soft(df), loc, soft(scale), logits)


def law(mixture: Mixture) -> Any:
    """The distribution function of mixtures [M, K] at [M], by scipy."""
    wide = Mixture(*(t.double() for t in mixture.parts))
    df, loc, scale, share = (t.numpy() for t in (wide.df, wide.loc, wide.scale, wide.shares))
    return lambda x: (share * stats.t.cdf(x[:, None], df, loc, scale)).sum(-1)


@pytest.mark.parametrize("wild", [0.3, 1.0, 4.0])
def test_a_hundred_mixtures_have_the_quantiles_that_scipy_finds(wild: float) -> None:
    """Within 1e-6 of the mean scale, spikes beside plains and far tails included."""
    many = mixtures(100, wild)
    found = quantiles(many, TAILS).numpy()
    width = (many.shares * many.scale).sum(-1).numpy()
    for m in range(100):
        below = law(Mixture(*(t[m : m + 1] for t in many.parts)))

        def beyond(x: float, level: float, below: Any = below) -> float:
            return float(below(np.array([x]))[0]) - level

        roots = [optimize.brentq(beyond, -1e5, 1e5, args=(level,)) for level in TAILS]
        apart = np.abs(np.array(roots) - found[m]) / np.maximum(width[m], np.abs(roots))
        assert apart.max() <= 1e-6, (m, apart)


def test_a_million_draws_agree() -> None:
    mixture = mixtures(1, 1.0, seed=5)
    draws = torch.from_numpy(np.random.default_rng(2).random((1_000_000, 3)))
    one = Mixture(*(t[0].double() for t in mixture.parts))
    drawn = np.quantile(draw(one, draws).numpy(), DEFAULT_LEVELS)
    found = quantiles(mixture, DEFAULT_LEVELS).numpy()[0]
    share_below = law(mixture)
    np.testing.assert_allclose(drawn, found, atol=0.02)
    for at, level in zip(drawn, DEFAULT_LEVELS, strict=True):  # four standard errors of a share
        assert abs(share_below(np.array([at]))[0] - level) < 4 * (level * (1 - level) / 1e6) ** 0.5


def test_a_narrow_component_is_not_stepped_over() -> None:
    """Nine tenths of the mass in a spike of width 1e-5, far inside one plain of width 10."""
    spike = Mixture(
        df=torch.tensor([[2.0, 40.0]]),
        loc=torch.tensor([[0.0, 3.0]]),
        scale=torch.tensor([[10.0, 1e-5]]),
        logits=torch.tensor([[0.1, 0.9]]).log(),
    )
    found = quantiles(spike, DEFAULT_LEVELS).numpy()
    np.testing.assert_allclose(law(spike)(found[0, :, None][:, 0]), DEFAULT_LEVELS, atol=1e-6)


def test_what_is_no_number_stays_none() -> None:
    mixture = mixtures(2, 1.0)
    mixture.loc[0, 0] = torch.nan
    found = quantiles(mixture, DEFAULT_LEVELS)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@pytest.mark.parametrize(
    ("values", "horizon"),
    [
        ({"target": "overlapping"}, 3),
        ({"target": "overlapping", "scaling": "volatility"}, 8),
        ({"target": "price"}, 3),
        ({"target": "return"}, 1),
    ],
)
def test_samples_without_end_become_the_exact_forecast(
    values: dict[str, Any], horizon: int
) -> None:
    """Every target whose leads are single bars: 20,000 draws are within their own noise."""
    exact = predictor_of(resolved(**values, num_samples=None), horizon)
    config = dataclasses.replace(resolved(**values), num_samples=20_000)
    drawn = dataclasses.replace(exact, config=config)
    context = context_of(num=2)
    one, other = (
        p.predict(context, horizon=horizon, levels=DEFAULT_LEVELS, seed=0).values
        for p in (
            dataclasses.replace(exact, config=dataclasses.replace(config, num_samples=None)),
            drawn,
        )
    )
    width = one[..., -1:] - one[..., :1]
    assert np.abs(one - other).max() < 0.03 * width.max()
    assert (np.abs(one - other) / width).max() < 0.03


def test_only_what_needs_paths_is_drawn_unless_asked_for() -> None:
    """Horizon 3: leads are bars of the next patch, but one-bar returns are summed, and a patch of
    two bars is too short."""
    assert resolved().num_samples is None
    assert resolved(target="price").num_samples is None
    assert resolved(num_samples=64).num_samples == 64
    assert resolved(target="return").num_samples == 256
    assert resolved(patch_size=2).num_samples == 256


def test_an_exact_forecast_does_not_depend_on_the_seed_and_a_drawn_one_does() -> None:
    for samples, same in ((None, True), (16, False)):
        predictor = predictor_of(resolved(num_samples=samples))
        one, other = (
            predictor.predict(context_of(), horizon=3, levels=DEFAULT_LEVELS, seed=s).values
            for s in (0, 1)
        )
        assert np.array_equal(one, other) is same
