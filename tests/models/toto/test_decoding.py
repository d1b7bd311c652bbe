"""Toto's sampled futures are the authors' own, patch by patch, however they are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from foresweep.models.base import DEFAULT_LEVELS, Resources
from foresweep.models.toto import network as nets
from foresweep.models.toto.decoding import (
    Chains,
    draw,
    last_states,
    sample_paths,
    sample_points,
    student_t,
)
from foresweep.models.toto.network import Mixture, fold
from foresweep.models.training.loop import seeded
from toto_tiny import context_of, network_of, predictor_of, resolved


def series(num: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Walks on unlike levels: the scaler has something to do."""
    steps = torch.randn(num, channels, 64, generator=torch.Generator().manual_seed(seed))
    return steps.cumsum(-1) * torch.tensor([0.3, 1.0, 20.0])[:channels, None] + 5.0


def trained_alike(config: Any) -> Any:
    """A network whose weights are far from those of a fresh one, so that nothing cancels."""
    network = network_of(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5).add_(0.02)
    return network


class Theirs:
    """The authors' decoding with their cache: whole chains in, the newest patch's mixture out."""

    def __init__(self, network: Any, x: torch.Tensor, real: torch.Tensor, samples: int) -> None:
        self.network, self.length, self.samples = network, x.shape[-1], samples
        self.chains, self.real = x.repeat(samples, 1, 1), real.repeat(samples, 1, 1)
        self.cache = network.allocate_kv_cache(
            batch_size=len(self.chains),
            num_variates=x.shape[1],
            max_time_steps=self.length + 64,
            device=x.device,
            dtype=x.dtype,
        )

    def newest(self) -> Any:
        from toto.inference.forecaster import TotoForecaster

        known = nets.masks(self.chains)[0]
        known[..., : self.length] = self.real
        ids = nets.masks(self.chains)[1]
        found = self.network(self.chains, known, ids, self.cache, self.length)
        return TotoForecaster.create_affine_transformed(*found)

    def push(self, values: torch.Tensor) -> None:
        flat = values.transpose(0, 1).flatten(0, 1)
        self.chains = torch.cat([self.chains, flat], dim=-1)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_teacher_forced_means_are_the_authors_forecasters(channels: int, layers: int) -> None:
    """The same futures pushed into both, patch by patch: what comes next has the same mean."""
    network = trained_alike(resolved(num_layers=layers))
    x = series(2, channels)
    real = torch.ones_like(x, dtype=torch.bool)
    real[0, :, :8] = False
    futures = 5 + torch.randn(2, 5, channels, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        ours, theirs = Chains(network, x, real, 5, 4), Theirs(network, x, real, 5)
        for k in range(5):
            expected = theirs.newest().mean[..., -8:].unflatten(0, (5, 2)).transpose(0, 1)
            newest = ours.newest  # compared in scales: its own rounding is what float32 has
            found = newest.mixture.mean.expand_as(expected)
            torch.testing.assert_close(
                found, (expected - newest.loc) / newest.scale, rtol=1e-5, atol=2e-5
            )
            if k < 4:
                patch = futures[..., 8 * k : 8 * k + 8] + k * 3.0
                ours.push(patch)
                theirs.push(patch)


def test_free_running_chains_follow_the_authors_mixtures() -> None:
    """Each drawn patch is the inverse of the authors' own mixture at the same uniforms."""
    network = network_of(resolved())
    x = series(2, 3)
    real = nets.masks(x)[0]
    draws = torch.rand(2, 5, 3, 24, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = sample_paths(network, x, real, draws)
        theirs = Theirs(network, x, real, 5)
        for k in range(3):
            own = draws[..., 8 * k : 8 * k + 8, :].transpose(0, 1).flatten(0, 1)
            expected = inverse(theirs.newest(), own).unflatten(0, (5, 2)).transpose(0, 1)
            patch = ours[..., 8 * k : 8 * k + 8]
            torch.testing.assert_close(patch, expected, rtol=1e-4, atol=1e-4)
            theirs.push(patch)


def inverse(mixture: Any, draws: torch.Tensor) -> torch.Tensor:
    """Draws of the newest patch, written out apart from the code under test."""
    base, patch = mixture.base_dist, draws.shape[-2]
    affine = mixture.transforms[0]
    probs = base.mixture_distribution.probs[:, :, -patch:]
    chosen = (draws[..., 0, None] >= probs.cumsum(-1)).sum(-1, keepdim=True)
    df, loc, scale = (
        getattr(base.component_distribution, k)[:, :, -patch:].gather(-1, chosen)[..., 0]
        for k in ("df", "loc", "scale")
    )
    radius = (df * ((1 - draws[..., 1]) ** (-2 / df) - 1)).sqrt()
    drawn = loc + scale * radius * torch.cos(2 * np.pi * draws[..., 2])
    return drawn * affine.scale[:, :, -patch:] + affine.loc[:, :, -patch:]


@pytest.mark.parametrize("options", [{}, {"spacewise_every_n_layers": 2, "spacewise_first": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_last_patch_alone_is_as_among_all(channels: int, options: dict[str, Any]) -> None:
    """The network's order of layers, and one whose layers over time come last; padding, too."""
    config = resolved(num_layers=4)
    with seeded(0, Resources()):
        network = nets.build({**nets.network_options(config.architecture, 0.1), **options}).eval()
    x = series(2, channels)
    real = torch.ones_like(x, dtype=torch.bool)
    real[0, :, :8] = False
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5).add_(0.02)
        hidden, loc, scale = nets.hidden_states(network, x, real)
        found = last_states(network, x, real)
    wanted = hidden[:, :, -1], loc[..., -1], scale[..., -1]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6 * float(other.abs().max()))


def test_the_folded_mixture_is_the_authors_own() -> None:
    """Parameters, mean, log density and gradients, of every bar."""
    network = trained_alike(resolved())
    x = series(2, 3)
    y = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    found = network(x, *nets.masks(x)).distribution
    hidden, _, _ = nets.hidden_states(network, x, nets.masks(x)[0])
    ours = fold(network).mixture(hidden)
    parts = found.component_distribution
    for one, other in ((ours.df, parts.df), (ours.loc, parts.loc), (ours.scale, parts.scale)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.mean, found.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.log_prob(y), found.log_prob(y), rtol=1e-5, atol=1e-5)
    gradients = []
    for loss in (found.log_prob(y).mean(), ours.log_prob(y).mean()):
        wanted = [p for p in network.parameters() if p.requires_grad]
        gradients.append(torch.autograd.grad(loss, wanted))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_student_t_draws_have_the_right_law() -> None:
    u = torch.from_numpy(np.random.default_rng(0).random((2, 200_000)))
    for df in (2.1, 4.0, 30.0):
        drawn = student_t(torch.full((1,), df, dtype=torch.float64), u[0], u[1])
        assert stats.kstest(drawn.numpy(), stats.t(df).cdf).pvalue > 0.01


def test_drawn_quantiles_are_those_of_the_mixture() -> None:
    mixture = Mixture(
        df=torch.tensor([3.0, 8.0]),
        loc=torch.tensor([-1.0, 2.0]),
        scale=torch.tensor([0.5, 1.0]),
        logits=torch.tensor([0.0, 1.0]),
    )
    draws = torch.from_numpy(np.random.default_rng(1).random((40_000, 3))).float()
    at = np.quantile(draw(mixture, draws).numpy(), [0.1, 0.5, 0.9])
    cdf = stats.t([3, 8], [-1, 2], [0.5, 1]).cdf(at[:, None]) @ mixture.shares.numpy()
    np.testing.assert_allclose(cdf, [0.1, 0.5, 0.9], atol=0.01)


def test_single_bars_are_drawn_as_whole_paths_would_have_them() -> None:
    network = network_of(resolved())
    x = series(2, 3)
    draws = torch.rand(2, 5, 3, 8, 3)
    channels, steps = torch.tensor([0, 1, 1]), torch.tensor([0, 4, 7])
    real = nets.masks(x)[0]
    with torch.no_grad():
        paths = sample_paths(network, x, real, draws)
        points = sample_points(network, x, real, draws[:, :, channels, steps], channels, steps)
    torch.testing.assert_close(points, paths[:, :, channels, steps])


@pytest.mark.parametrize("scaling", ["none", "volatility"])
@pytest.mark.parametrize("target", ["overlapping", "return"])
def test_a_horizon_of_several_patches_is_rolled(target: str, scaling: str) -> None:
    config = resolved(target=target, patch_size=4, scaling=scaling, num_samples=64)
    found = predictor_of(config, horizon=11).predict(
        context_of(), horizon=11, levels=DEFAULT_LEVELS, seed=0
    )
    width = found.values[..., -1] / found.values[..., 0]
    assert (width[:, -1] > 1).all()
    found.checked(6, 11)


def test_how_many_windows_go_together_changes_rounding_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = predictor_of(resolved(target="return", num_samples=16), horizon=20)

    def ask() -> np.ndarray:
        return predictor.predict(context_of(), horizon=20, levels=DEFAULT_LEVELS, seed=0).values

    together = ask()
    monkeypatch.setattr("foresweep.models.toto.model.CHAINS", 1)
    np.testing.assert_allclose(ask(), together, rtol=1e-5)


def test_more_samples_refine_the_same_forecast() -> None:
    few, many = (
        predictor_of(resolved(num_samples=s)).predict(
            context_of(), horizon=3, levels=DEFAULT_LEVELS, seed=0
        )
        for s in (500, 2000)
    )
    np.testing.assert_allclose(few.values, many.values, rtol=0.02)
    assert not np.array_equal(few.values, many.values)
