"""Sampling from one shared context is the package's own loop, only faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kronos_finance._vendor.kronos_model.kronos import (
    auto_regressive_inference,
    top_k_top_p_filtering,
)

from foresweep.errors import ForecastError
from foresweep.models.kronos.config import (
    KronosConfig,
    Nets,
    architecture_of,
    build,
    resolve_scratch,
)
from foresweep.models.kronos.sampling import (
    Sampling,
    _probabilities,
    inverse_cdf,
    sample_paths,
)
from kronos_tiny import FACTS

NUM_WINDOWS, CONTEXT, HORIZON, SAMPLES = 3, 24, 6, 8


def nets(num_layers: int = 2, tokenizer_layers: int = 3) -> Nets:
    torch.manual_seed(0)
    config = KronosConfig(
        d_model=32, num_layers=num_layers, ff_dim=48, token_bits=5, context_length=CONTEXT,
        tokenizer_d_model=32, tokenizer_layers=tokenizer_layers,
    )  # fmt: skip
    return build(architecture_of(resolve_scratch(config, FACTS)))


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(NUM_WINDOWS, CONTEXT, 6, generator=generator)
    stamps = torch.randint(0, 7, (NUM_WINDOWS, CONTEXT + HORIZON, 5), generator=generator)
    return x, stamps[:, :CONTEXT], stamps[:, CONTEXT:]


def multinomial(probs: torch.Tensor, step: int, half: int) -> torch.Tensor:
    return torch.multinomial(probs, 1)[:, 0]


def theirs(both: Nets, given: tuple[torch.Tensor, ...], how: Sampling) -> np.ndarray:
    """Means [B, H, 6] over the paths of the package's own loop."""
    found = auto_regressive_inference(
        both.tokenizer, both.predictor, *given, how.positions, HORIZON,
        T=how.temperature, top_k=how.top_k, top_p=how.top_p, sample_count=how.num_samples,
    )  # fmt: skip
    means: np.ndarray = found[:, -HORIZON:]
    return means


def compare(both: Nets, how: Sampling) -> None:
    """For the same seed of torch, our paths are the package's."""
    given = inputs()
    torch.manual_seed(7)
    ours = sample_paths(both.tokenizer, both.predictor, *given, how, multinomial)
    torch.manual_seed(7)
    wanted = theirs(both, given, how)
    assert ours.shape == (NUM_WINDOWS, SAMPLES, HORIZON, 6)
    assert float(ours.std(dim=1).min()) > 0, "paths must differ"
    np.testing.assert_allclose(ours.mean(dim=1).numpy(), wanted, atol=2e-6)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.3, 0.5)])
@pytest.mark.parametrize(("num_layers", "tokenizer_layers"), [(1, 2), (3, 4)])
def test_paths_are_those_of_the_packages_loop_for_the_same_draws(
    temperature: float, top_p: float, num_layers: int, tokenizer_layers: int
) -> None:
    compare(nets(num_layers, tokenizer_layers), Sampling(SAMPLES, temperature, top_p))


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_the_likeliest_tokens_are_the_packages_choice_ties_included(top_p: float) -> None:
    logits = 2 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    logits[100:] = logits[100:].round()  # many tokens of a row alike
    ours = _probabilities(logits.clone(), Sampling(1, top_p=top_p))
    theirs = top_k_top_p_filtering(logits.clone(), top_k=0, top_p=top_p).softmax(-1)
    assert torch.equal(ours, theirs)


def test_the_likeliest_k_tokens_are_the_packages_and_leave_top_p_alone() -> None:
    compare(nets(), Sampling(SAMPLES, top_p=0.01, top_k=4))


@pytest.mark.parametrize("positions", [CONTEXT - 4, CONTEXT, CONTEXT + 3, CONTEXT + HORIZON - 1])
def test_beyond_the_models_positions_paths_slide_as_the_packages_do(positions: int) -> None:
    compare(nets(), Sampling(SAMPLES, positions=positions))


def test_a_horizon_that_fills_every_position_is_the_packages_and_a_longer_one_is_refused() -> None:
    compare(nets(), Sampling(SAMPLES, positions=HORIZON))
    both, given = nets(), inputs()
    with pytest.raises(ForecastError, match="holds 5 bars and was asked for 6"):
        sample_paths(both.tokenizer, both.predictor, *given, Sampling(2, positions=5), multinomial)


def test_a_window_alone_and_beside_others_has_the_same_paths() -> None:
    both = nets()
    x, past, future = inputs()
    uniforms = torch.rand(NUM_WINDOWS, SAMPLES, HORIZON, 2, dtype=torch.float64)
    how = Sampling(SAMPLES)

    def paths(at: list[int]) -> torch.Tensor:
        draw = inverse_cdf(uniforms[at])
        nets_ = both.tokenizer, both.predictor
        return sample_paths(*nets_, x[at], past[at], future[at], how, draw)

    together = paths([0, 1, 2])
    torch.testing.assert_close(paths([1]), together[[1]], atol=1e-6, rtol=0)
    torch.testing.assert_close(paths([2, 0, 1]), together[[2, 0, 1]], atol=1e-6, rtol=0)


def test_a_path_does_not_depend_on_how_many_are_drawn() -> None:
    both = nets()
    x, past, future = inputs()
    uniforms = torch.rand(NUM_WINDOWS, SAMPLES, HORIZON, 2, dtype=torch.float64)

    def paths(num: int) -> torch.Tensor:
        draw = inverse_cdf(uniforms[:, :num])
        return sample_paths(both.tokenizer, both.predictor, x, past, future, Sampling(num), draw)

    torch.testing.assert_close(paths(3), paths(SAMPLES)[:, :3], atol=1e-6, rtol=0)


@given(
    weights=st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda w: sum(w) > 0.1),
    uniform=st.floats(0, 1, exclude_max=True),
)
@example(weights=[0.0, 1.0], uniform=0.0)
@example(weights=[1.0, 0.0, 1.0], uniform=0.5)
def test_inverse_cdf_takes_the_token_whose_interval_holds_the_uniform(
    weights: list[float], uniform: float
) -> None:
    probs = np.array(weights) / np.sum(weights)
    draw = inverse_cdf(torch.full((1, 1, 1, 2), uniform, dtype=torch.float64))
    token = int(draw(torch.from_numpy(probs)[None], 0, 0)[0])
    edges = np.concatenate([[0], np.cumsum(probs)]) / np.cumsum(probs)[-1]
    assert edges[token] - 1e-12 <= uniform <= edges[token + 1] + 1e-12
    assert probs[token] > 0


def test_a_uniform_that_rounding_made_one_takes_the_last_token() -> None:
    draw = inverse_cdf(torch.ones(1, 1, 1, 2, dtype=torch.float32))
    assert draw(torch.tensor([[0.25, 0.5, 0.25]]), 0, 1).tolist() == [2]


def test_nucleus_sampling_keeps_only_the_likeliest_tokens() -> None:
    both = nets()
    x, past, future = inputs()
    uniforms = torch.rand(NUM_WINDOWS, SAMPLES, HORIZON, 2, dtype=torch.float64)
    how = Sampling(SAMPLES, top_p=1e-6)
    paths = sample_paths(
        both.tokenizer, both.predictor, x, past, future, how, inverse_cdf(uniforms)
    )
    assert float(paths.std(dim=1).max()) < 1e-6, "one token is left: all paths are the same"


def test_weights_that_are_not_finite_are_an_error_not_a_forecast() -> None:
    both = nets()
    with torch.no_grad():
        both.predictor.head.proj_s1.bias[0] = float("nan")
    x, past, future = inputs()
    with pytest.raises(ForecastError, match="not finite"):
        sample_paths(both.tokenizer, both.predictor, x, past, future, Sampling(2), multinomial)
