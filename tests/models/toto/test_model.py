"""What is Toto's own; the contract of all models is kept in slow/test_contract_models.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, make_context
from foresweep.errors import ConfigError, ModelError, WeightsNotFound
from foresweep.models.base import DEFAULT_LEVELS, Resources, TrainingJob, as_dict
from foresweep.models.toto import network as nets
from foresweep.models.toto.model import Toto, TotoConfig, TotoLearner, usable_rows, whole_patches
from foresweep.models.toto.network import Mixture, fold, load_pretrained, make_loss
from foresweep.models.training.loop import inference, seeded
from foresweep.models.training.optimisation import recompute
from panels import make_panel
from toto_tiny import FACTS, authors_folder, context_of, network_of, predictor_of, resolved


class TestWindows:
    @pytest.mark.parametrize(("rows", "used"), [(64, 59), (61, 59), (11, 11), (10, 10), (3, 3)])
    def test_windows_give_whole_patches_after_the_lag(self, rows: int, used: int) -> None:
        assert usable_rows(rows, 3, 8) == used

    def test_a_window_too_short_for_a_patch_is_filled_with_what_says_nothing(self) -> None:
        channels = np.random.default_rng(0).standard_normal((2, 3, 5))
        kept, real = whole_patches(channels, 3, 8)
        assert kept.shape == (2, 3, 8)
        np.testing.assert_array_equal(real[0, 0], [False] * 3 + [True] * 5)
        np.testing.assert_allclose(kept[..., 3:], channels)
        scaler = network_of(resolved()).scaler
        x = torch.from_numpy(kept)
        scaled, _, _ = scaler(x, torch.from_numpy(real), torch.ones_like(x))
        np.testing.assert_allclose(scaled[..., :3], 0.0, atol=1e-12)

    def test_training_and_forecasting_see_the_same_series(self) -> None:
        panel, config = make_panel(3, 400), resolved()
        split = make_split(panel, Cut(3))
        train = TrainWindows(panel, split, split.part("train"))
        learner = TotoLearner(network_of(config), train, config, 3, Resources())
        item, row = np.array([0, 2]), np.array([5, 60])
        rows = usable_rows(64, 3, 8)
        learnt = learner.series(train.cut(item, row, rows + 8)[0])
        seen: list[np.ndarray] = []
        predictor = predictor_of(config)
        context = make_context(panel, item, row + rows - 1, 64, 3).last(rows)
        encoded = predictor.representation.encode(context.values, rows)
        seen.append(whole_patches(encoded.channels, 3, 8)[0])
        np.testing.assert_array_equal(learnt[..., :-8], torch.from_numpy(seen[0]).float())

    def test_the_loss_is_that_of_the_authors_module(self) -> None:
        config = resolved()
        panel = make_panel(2, 300)
        split = make_split(panel, Cut(3))
        train = TrainWindows(panel, split, split.part("train"))
        learner = TotoLearner(network_of(config), train, config, 3, Resources())
        (series,) = learner.draw(np.random.default_rng(0), 4)
        found = learner.module(series[..., :-8], *nets.masks(series[..., :-8]))
        labels = (series[..., 8:] - found.loc) / found.scale
        from toto.model.losses import CombinedLoss

        expected = CombinedLoss()(found.distribution, labels).mean()
        torch.testing.assert_close(learner.loss((series,)), expected)


class TestLosses:
    def mixture(self) -> Mixture:
        network = network_of(resolved())
        return fold(network).mixture(torch.randn(3, 2, 32))

    def test_combined_is_the_authors_own(self) -> None:
        from toto.model.losses import CombinedLoss

        found, y = self.mixture(), torch.linspace(-3, 3, 16).expand(3, 16)
        parts = torch.distributions.StudentT(found.df, found.loc, found.scale)
        shares = torch.distributions.Categorical(probs=found.shares)
        theirs = torch.distributions.MixtureSameFamily(shares, parts)
        for weight in (0.575, 0.3, 1.0):
            expected = CombinedLoss(lambda_nll=weight)(theirs, y)
            torch.testing.assert_close(make_loss("combined", weight, None)(found, y), expected)

    def test_huber_is_the_likelihood_and_a_robust_error_of_the_mean(self) -> None:
        mixture, y = self.mixture(), torch.linspace(-3, 3, 16).expand(3, 16)
        error = (y - mixture.mean).abs()
        robust = torch.where(error <= 0.5, error**2 / (2 * 0.5), error - 0.25)
        expected = -0.3 * mixture.log_prob(y) + 0.7 * robust
        torch.testing.assert_close(make_loss("huber", 0.3, 0.5)(mixture, y), expected)

    def test_quantile_is_least_where_the_label_is_the_mean(self) -> None:
        mixture = self.mixture()
        loss = make_loss("quantile", 0.1, None)
        middle = mixture.mean
        assert (loss(mixture, middle) < loss(mixture, middle + 3)).all()

    def test_quantile_pinball_equals_its_definition(self) -> None:
        mixture, y = self.mixture(), torch.zeros(3, 16)
        p = mixture.logits.softmax(-1)
        mean = (p * mixture.loc).sum(-1)
        sd = ((p * (mixture.scale**2 + mixture.loc**2)).sum(-1) - mean**2).sqrt()
        found = (make_loss("quantile", 0.5, None)(mixture, y) + 0.5 * mixture.log_prob(y)) * 2
        total = torch.zeros(3, 16)
        for level in DEFAULT_LEVELS:
            error = y - (mean + sd * float(stats.norm.ppf(level)))
            total += 2 * torch.where(error > 0, level * error, (level - 1) * error) / 9
        torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-5)


class TestResolve:
    def test_architecture_is_filled_in_from_the_size(self) -> None:
        config = Toto().resolve(TotoConfig(size="base", context_length=256), FACTS)
        assert config.architecture == {
            "patch_size": 64,
            "embed_dim": 768,
            "num_layers": 12,
            "num_heads": 12,
            "mlp_hidden_dim": 3072,
            "num_components": 24,
        }

    @pytest.mark.slow
    def test_base_is_the_published_network(self) -> None:
        config = Toto().resolve(TotoConfig(size="base", context_length=256), FACTS)
        with torch.device("meta"):
            network = nets.build(nets.network_options(config.architecture, 0.0))
        assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 151

    def test_resolving_twice_changes_nothing(self) -> None:
        once = resolved(loss_type="huber")
        assert once.huber_delta == 0.1
        assert Toto().resolve(once, FACTS) == once

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"huber_delta": 0.5}, "huber_delta=0.5 has no effect with loss_type='combined'"),
            ({"loss_type": "quantile", "nll_weight": 1.0}, "no effect with nll_weight=1"),
            ({"embed_dim": 30, "num_heads": 4}, "embed_dim=30 must be an even multiple"),
            ({"embed_dim": 36, "num_heads": 4}, "embed_dim=36 must be an even multiple"),
            ({"patch_size": 64}, "context_length=64 leaves no whole patch .* use at least 67"),
            ({"size": None}, "patch_size must be given|num_components, patch_size must be given"),
        ],
    )
    def test_contradictions_are_refused_by_name(self, values: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            resolved(**values)


class TestPretrained:
    def config(self, folder: Path, **more: Any) -> TotoConfig:
        return TotoConfig(pretrained=str(folder), size=None, context_length=64, **more)

    def test_a_folder_in_the_authors_format_is_the_start(self, tmp_path: Path) -> None:
        state = authors_folder(tmp_path)
        config = Toto().resolve(self.config(tmp_path), FACTS)
        assert (config.patch_size, config.embed_dim) == (16, 32)
        network = load_pretrained(tmp_path, config.dropout)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
        assert len(Toto().weights_hash(config)) == 64
        assert Toto().resolve(config, FACTS) == config

    def test_training_begins_at_the_weights_and_is_stored_whole(self, tmp_path: Path) -> None:
        state = authors_folder(tmp_path)
        panel = make_panel(3, 400)
        split = make_split(panel, Cut(3))
        config = Toto().resolve(self.config(tmp_path, max_steps=1, lr=1e-9), FACTS)
        checkpoint = Toto().train(
            TrainingJob(
                TrainWindows(panel, split, split.part("train")),
                config,
                horizon=3,
                out=tmp_path / "out",
            )
        )
        loaded = Toto().load(checkpoint, Resources())
        for name, value in loaded.network.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6)
        assert checkpoint.config == as_dict(config)
        assert checkpoint.card["network"]["patch_size"] == 16

    def test_an_architecture_that_contradicts_the_weights_is_refused(self, tmp_path: Path) -> None:
        authors_folder(tmp_path)
        with pytest.raises(ConfigError, match=r"patch_size=8 contradicts .* have patch_size=16"):
            Toto().resolve(self.config(tmp_path, patch_size=8), FACTS)

    def test_weights_that_lack_a_parameter_are_refused(self, tmp_path: Path) -> None:
        state = {f"model.{k}": v for k, v in authors_folder(tmp_path).items()}
        lost = state.pop("model.unembed.bias")
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=r"lacks 1 parameters: model\.unembed\.bias"):
            load_pretrained(tmp_path, 0.0)
        save_file({**state, "model.unembed.bias": lost[:-1]}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match="do not fit"):
            load_pretrained(tmp_path, 0.0)

    @pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"d_model": 64}'])
    def test_another_models_folder_is_refused(self, tmp_path: Path, text: str) -> None:
        authors_folder(tmp_path)
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=r"config\.json"):
            Toto().resolve(self.config(tmp_path), FACTS)

    def test_published_weights_out_of_reach_are_said_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(WeightsNotFound, match=r"Datadog/Toto-Open-Base-1\.0"):
            Toto().weights_hash(TotoConfig(pretrained="published", size=None))


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    config = resolved()
    x = torch.randn(2, 1, 64)
    gradients = []
    for flag in (False, True):
        with seeded(0, Resources()):
            network = nets.build(nets.network_options(config.architecture, 0.2)).train()
            if flag:
                recompute(network.transformer.layers)
            hidden, _, _ = nets.hidden_states(network, x, nets.masks(x)[0])
        fold(network).mixture(hidden).log_prob(x).mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_forecasting_leaves_mode_and_random_state_alone() -> None:
    predictor = predictor_of(resolved(dropout=0.5))
    predictor.network.train()
    before = torch.get_rng_state()
    first = predictor.predict(context_of(), horizon=3, levels=DEFAULT_LEVELS, seed=0)
    again = predictor.predict(context_of(), horizon=3, levels=DEFAULT_LEVELS, seed=0)
    assert predictor.network.training
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first.values, again.values)
    with inference(predictor.network, Resources()):
        assert not predictor.network.training
