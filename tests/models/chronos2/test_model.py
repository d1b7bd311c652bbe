"""Chronos-2: what is settled before training, and the network against its authors' own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.data.panel import CLOSE, panel_from_frame
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import ConfigError, ForecastError, ModelError, WeightsNotFound
from foresweep.models.base import DEFAULT_LEVELS, Facts, Resources, TrainingJob, make_config
from foresweep.models.chronos2.model import (
    Chronos2,
    Chronos2Config,
    Chronos2Predictor,
    between_levels,
    encode,
    start,
)
from foresweep.models.representation import Representation
from foresweep.models.training.loop import seeded
from foresweep.models.training.optimisation import recompute, tune
from foresweep.space import parse_space_file
from panels import make_frame, make_panel

FACTS = Facts(horizon=5, max_context=512, train_bars=8000)
SHAPE = {"patch_size": 8, "d_model": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
SMALL = {**SHAPE, "context_length": 48, "batch_size": 4, "max_steps": 4}


def resolved(**values: Any) -> Chronos2Config:
    config = make_config(Chronos2Config, values, model="chronos2")
    return Chronos2().resolve(config, FACTS)


@pytest.fixture(scope="module")
def train() -> TrainWindows:
    panel = make_panel(num_items=3, num_bars=300)
    split = make_split(panel, Cut(FACTS.horizon))
    return TrainWindows(panel, split, split.part("train"))


def make_network(seed: int = 0, *, spread: float = 1.0, **options: Any) -> Any:
    """A network as from scratch, `spread` times its first weights: far from an even forecast."""
    from foresweep.models.chronos2 import network as net

    dropout = options.pop("dropout", 0.0)
    core = net.core_config(
        **{**SHAPE, **options}, dropout=dropout, context_length=48, label_length=5
    )
    with seeded(seed, Resources()):
        network = net.build(core)
    for parameter in network.parameters():
        parameter.data.mul_(spread)
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the authors' format."""
    return saved(make_network(spread=10.0, dropout=0.1), tmp_path_factory.mktemp("weights"))


def saved(network: Any, path: Path) -> Path:
    """The folder that `Chronos2Pipeline.save_pretrained` writes."""
    from chronos import Chronos2Pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    Chronos2Pipeline(network).save_pretrained(path)
    return path


# --- configs ---------------------------------------------------------------------------------


def test_what_is_open_is_filled_from_the_size() -> None:
    config = resolved()
    assert (config.size, config.patch_size, config.d_model, config.num_layers) == ("tiny", 8, 64, 2)
    assert (config.dropout, config.prediction_length, config.max_steps) == (0.1, 5, 300)
    base = resolved(size="base")
    assert (base.d_model, base.d_ff, base.num_layers, base.num_heads) == (768, 3072, 12, 12)


def test_the_config_speaks_louder_than_the_size() -> None:
    config = resolved(size="small", num_layers=3, dropout=0.0)
    assert (config.num_layers, config.d_model, config.dropout) == (3, 512, 0.0)


def test_weights_fix_the_architecture_and_dropout_is_theirs_unless_chosen(folder: Path) -> None:
    config = resolved(pretrained=str(folder))
    assert {k: getattr(config, k) for k in SHAPE} == SHAPE
    assert (config.size, config.dropout, config.max_steps) == (None, 0.1, 1000)
    assert resolved(pretrained=str(folder), dropout=0.3).dropout == 0.3


@pytest.mark.parametrize("finetune", ["scratch", "full", "lora", "none"])
def test_a_config_that_is_resolved_again_stays_as_it_is(folder: Path, finetune: str) -> None:
    tuned = {"pretrained": str(folder), "finetune": finetune}
    config = resolved(**(tuned if finetune != "scratch" else {}))
    assert Chronos2().resolve(config, FACTS) == config


def test_lora_takes_the_authors_rank_and_twice_the_rank_as_alpha(folder: Path) -> None:
    config = resolved(pretrained=str(folder), finetune="lora")
    assert (config.lora_r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.0)
    config = resolved(pretrained=str(folder), finetune="lora", lora_r=4)
    assert (config.lora_r, config.lora_alpha) == (4, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"finetune": "lora"}, "finetune='lora' would keep a backbone of random weights"),
        ({"freeze": "backbone"}, "freeze='backbone' would keep a backbone of random"),
        ({"finetune": "none"}, "finetune='none' would forecast with random weights"),
        ({"target": "price", "scaling": "volatility"}, "scaling='volatility' has no effect"),
        ({"lora_r": 16}, "lora_r=16 has no effect with finetune='full'"),
        ({"lora_alpha": 16}, "lora_alpha=16 has no effect with finetune='full'"),
        ({"lora_dropout": 0.0}, "lora_dropout=0.0 has no effect with finetune='full'"),
        ({"prediction_length": 4}, "prediction_length=4 is shorter than the horizon 5"),
        ({"d_model": 20, "num_heads": 4}, "use a multiple of 8"),
        ({"context_length": 1024}, "max_context 512"),
        ({"max_steps": 10, "max_epochs": 1}, "exclude each other"),
    ],
)
def test_a_choice_without_effect_or_sense_is_refused_by_name(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "tiny"}, "size='tiny' has no effect with pretrained"),
        ({"d_model": 32}, "d_model=32 contradicts pretrained=.* d_model=16"),
        ({"patch_size": 16}, "patch_size=16 contradicts pretrained=.* patch_size=8"),
        ({"finetune": "lora", "freeze": "backbone"}, "freeze='backbone' has no effect with"),
        ({"finetune": "none", "lr": 1e-5}, "lr=1e-05 has no effect with finetune='none'"),
        ({"finetune": "none", "dropout": 0.1}, "dropout=0.1 has no effect with finetune='none'"),
        ({"freeze": "lower_half"}, "freeze='lower_half' of 1 block freezes none"),
    ],
)
def test_a_choice_that_contradicts_the_weights_is_refused_by_name(
    folder: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(pretrained=str(folder), **values)


def test_a_context_that_cannot_hold_the_longest_return_twice_is_refused() -> None:
    far = Facts(horizon=64, max_context=512, train_bars=8000)
    config = make_config(Chronos2Config, {"context_length": 100}, model="chronos2")
    with pytest.raises(ConfigError, match=r"context_length=100 is too short .* at least 128"):
        Chronos2().resolve(config, far)


def test_weights_that_are_nowhere_name_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFound, match=r"amazon/chronos-2.*huggingface.co.*folder"):
        resolved(pretrained="published")


def test_the_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(json.dumps({"chronos_pipeline_class": "ChronosBolt"}))
    with pytest.raises(ConfigError, match=r"no Chronos-2 network .*ChronosBolt"):
        resolved(pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        resolved(pretrained=str(tmp_path))


def test_the_weights_hash_follows_config_and_weights(folder: Path, tmp_path: Path) -> None:
    assert Chronos2().weights_hash(resolved()) == ""
    config = resolved(pretrained=str(folder))
    found = {Chronos2().weights_hash(config)}
    for name in ("config.json", "model.safetensors"):
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        changed = (copy / name).read_bytes().replace(b"0.1", b"0.2") + b" "
        (copy / name).write_bytes(changed)
        elsewhere = make_config(Chronos2Config, {"pretrained": str(copy)}, model="chronos2")
        found.add(Chronos2().weights_hash(elsewhere))
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["scratch", "pretrained"])
def test_every_config_of_the_space_file_resolves(kind: Any, tmp_path: Path) -> None:
    from importlib.resources import files

    folder = saved(make_network(num_layers=2), tmp_path)

    text = (files("foresweep.models.chronos2") / "spaces" / "chronos2.toml").read_text()
    space = parse_space_file(text, kind)
    base = {"size": "tiny"} if kind == "scratch" else {"pretrained": str(folder)}
    shape = set(SHAPE) if kind == "pretrained" else set()
    listed = [e.config for mode in ("priority", "quick") for e in space.entries[mode]]
    drawn = [space.space.sample(np.random.default_rng(k)) for k in range(50)]
    for values in (*listed, *list(space.full.grid())[::7], *drawn):
        assert not shape & set(values)
        config = make_config(Chronos2Config, {**base, **values}, model="chronos2")
        Chronos2().resolve(config, Facts(5, 1024, 8000))
    assert len(space.entries["priority"]) >= 3
    assert len(space.entries["quick"]) >= 2


# --- levels and channels ---------------------------------------------------------------------


@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=9),
    st.lists(st.floats(-100, 100), min_size=21, max_size=21),
)
def test_levels_between_two_known_ones_are_linear(asked: list[float], values: list[float]) -> None:
    known = (0.01, *(k / 100 for k in range(5, 100, 5)), 0.99)
    found = between_levels(np.array(values), known, tuple(asked))
    np.testing.assert_allclose(found, np.interp(asked, known, values), atol=1e-9)


def test_a_level_beyond_the_network_s_own_is_refused() -> None:
    with pytest.raises(ForecastError, match=r"\[0.005\] lie outside .* 0.01 to 0.99"):
        between_levels(np.zeros((1, 3)), (0.01, 0.5, 0.99), (0.005, 0.5))


def test_a_return_from_before_the_first_bar_is_missing(train: TrainWindows) -> None:
    bars = train.cut(np.array([0]), np.array([10]), 20)[0]
    view = Representation("overlapping", "ohlcv", 3)
    channels, _ = encode(view, bars, 20)
    assert channels.shape == (1, 6, 20)
    assert np.isnan(channels[0]).sum(axis=1).tolist() == [1, 2, 3, 1, 1, 1]
    close = 100 * np.log(bars[0, :, CLOSE])
    np.testing.assert_allclose(channels[0, 2, 3:], close[3:] - close[:-3])


def test_a_window_shorter_than_two_lags_keeps_what_it_has(train: TrainWindows) -> None:
    bars = train.cut(np.array([0]), np.array([10]), 5)[0]
    channels, _ = encode(Representation("overlapping", "none", 3), bars, 5)
    assert np.isnan(channels[0]).sum(axis=1).tolist() == [1, 2, 0]


# --- the network -----------------------------------------------------------------------------


def test_the_loss_is_the_authors_own_on_an_equal_batch(train: TrainWindows) -> None:
    """Their dataset cuts the last window of each series; covariates are past-only there, too."""
    from chronos.chronos2.dataset import Chronos2Dataset, DatasetMode

    config = resolved(**SMALL, target="return", covariates="ohlcv", prediction_length=13)
    with seeded(0, Resources()):
        learner = start(TrainingJob(train, config, horizon=5, out=Path()))
    learner.module.eval()
    item = np.arange(3)
    row = np.array([len(train.values(i)) for i in item]) - 48 - 13
    bars = train.cut(item, row, 61)[0]
    batch = learner.windows(bars)
    assert bool(batch[1][:, 1:].isnan().all())
    assert not bool(batch[1][:, 0].isnan().any())

    channels, _ = encode(learner.view, bars, 48)
    inputs = [
        {"target": c[0], "past_covariates": {f"x{k}": c[k] for k in range(1, 4)}}
        for c in channels.astype(np.float32)
    ]
    theirs = Chronos2Dataset(
        inputs,
        context_length=48,
        prediction_length=13,
        batch_size=100,
        output_patch_size=8,
        mode=DatasetMode.VALIDATION,
    )
    (wanted,) = [learner.module(**b).loss.item() for b in theirs]
    assert learner.loss(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_labels_change_nothing_of_the_context_they_follow() -> None:
    frame = make_frame(num_items=1, num_bars=300)
    late = pl.int_range(pl.len()) >= 100 + 48
    prices = ("open", "high", "low", "close")
    other = frame.with_columns(
        pl.when(late).then(3.0 * pl.col(c)).otherwise(pl.col(c)).alias(c) for c in prices
    )
    config = resolved(**SMALL, target="price", covariates="ohlcv")
    found = []
    for panel in (panel_from_frame(frame), panel_from_frame(other)):
        split = make_split(panel, Cut(FACTS.horizon))
        with seeded(0, Resources()):
            own = TrainWindows(panel, split, split.part("train"))
            learner = start(TrainingJob(own, config, horizon=5, out=Path()))
        bars, _ = own.cut(np.array([0]), np.array([100]), 48 + 5)
        found.append(learner.windows(bars))
    np.testing.assert_array_equal(found[0][0].numpy(), found[1][0].numpy())
    assert not np.array_equal(found[0][1].numpy(), found[1][1].numpy())


def test_covariates_have_no_loss_of_their_own_but_are_seen(train: TrainWindows) -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    config = resolved(**SMALL, covariates="ohlcv")
    with seeded(0, Resources()):
        learner = start(TrainingJob(train, config, horizon=5, out=Path()))
    context, labels = learner.draw(np.random.default_rng(0), 4)
    assert labels.shape == (4, 8, 5)
    first = net.loss(network, context, labels)
    other = context.clone()
    other[:, 5:] = torch.roll(other[:, 5:], 1, dims=0)
    assert not torch.allclose(net.loss(network, other, labels), first)
    seen = net.loss(network, context[:, :5], labels[:, :5])
    assert not torch.allclose(first * 8, seen * 5)


def test_windows_of_a_batch_never_see_each_other() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(6, 3, 48, generator=generator)
    before = net.quantiles(network, context, 5)
    changed = context.clone()
    changed[2] *= 50
    after = net.quantiles(network, changed, 5)
    same = [k for k in range(6) if k != 2]
    assert torch.equal(after[same], before[same])
    assert not torch.allclose(after[2], before[2])
    alone = torch.cat([net.quantiles(network, context[k : k + 1], 5) for k in range(6)])
    torch.testing.assert_close(alone, before, rtol=1e-5, atol=1e-5)


def test_channels_of_a_window_see_each_other() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    context = torch.randn(1, 2, 48, generator=torch.Generator().manual_seed(0))
    changed = context.clone()
    changed[:, 1] = changed[:, 1].flip(-1)
    first, second = (net.quantiles(network, c, 5) for c in (context, changed))
    assert not torch.allclose(first[:, 0], second[:, 0])


def test_quantiles_that_cross_are_sorted() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    context = torch.randn(4, 1, 48, generator=torch.Generator().manual_seed(0))
    raw = network(context=context[:, 0], num_output_patches=1).quantile_preds
    assert bool((raw.diff(dim=1) < 0).any())
    found = net.quantiles(network, context, 5)
    assert found.shape == (4, 1, 5, 21)
    assert bool((found.diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("length", [40, 33, 9])
def test_bars_that_are_missing_on_the_left_are_as_if_never_there(length: int) -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    context = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(0))
    padded = torch.full((3, 2, 48), torch.nan)
    padded[..., -length:] = context
    torch.testing.assert_close(
        net.quantiles(network, padded, 5), net.quantiles(network, context, 5), rtol=1e-5, atol=1e-5
    )


def test_a_network_filled_with_another_s_weights_forecasts_the_same() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    first, second = make_network(0, spread=10.0), make_network(1)
    weights = {k: v.numpy() for k, v in first.state_dict().items()}
    assert not any("inv_freq" in name or name == "quantiles" for name in weights)
    context = torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(net.quantiles(first, context, 5), net.quantiles(second, context, 5))
    net.fill(second, weights, where="here")
    assert torch.equal(net.quantiles(first, context, 5), net.quantiles(second, context, 5))


def test_weights_that_do_not_fit_are_refused() -> None:
    from foresweep.models.chronos2 import network as net

    network = make_network()
    weights = {k: v.numpy() for k, v in network.state_dict().items()}
    del weights["shared.weight"]
    with pytest.raises(ModelError, match=r"here: weights do not fit .*shared\.weight"):
        net.fill(network, weights, where="here")


def test_half_precision_and_buffers_in_a_file_change_nothing(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0).bfloat16().float()  # weights that bfloat16 can hold
    state = {k: v.bfloat16() for k, v in network.state_dict().items()}
    state |= {k: v.contiguous() for k, v in network.named_buffers()}
    save_file(state, tmp_path / "model.safetensors")
    other = make_network(1)
    net.fill(other, net.read_weights(tmp_path / "model.safetensors"), where="here")
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    from foresweep.models.chronos2 import network as net

    file = tmp_path / "model.safetensors"
    file.write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        net.read_weights(file)


def test_longer_contexts_and_labels_widen_pretrained_weights_but_not_their_clock() -> None:
    from foresweep.models.chronos2 import network as net

    core = make_network().config.to_dict()
    wide = net.widened(core, dropout=0.2, context_length=96, label_length=30)
    assert wide["dropout_rate"] == 0.2
    inner = wide["chronos_config"]
    assert (inner["context_length"], inner["max_output_patches"]) == (96, 4)
    assert inner["time_encoding_scale"] == core["chronos_config"]["time_encoding_scale"] == 48
    kept = net.widened(core, dropout=0.0, context_length=16, label_length=5)["chronos_config"]
    assert (kept["context_length"], kept["max_output_patches"]) == (48, 1)


def test_lora_trains_adapters_alone_and_merging_changes_no_forecast() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    network = make_network(spread=10.0)
    names = set(network.state_dict())
    context = torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(0))
    plain = net.quantiles(network, context, 5)
    config = Chronos2Config(pretrained="here", finetune="lora", lora_r=2, lora_alpha=8)
    with seeded(1, Resources()):
        adapted = tune(network, config, net.layers(1))
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    layers = {name.split(".lora_")[0].split("encoder.block.0.layer.")[-1] for name in trained}
    assert all(".lora_" in name for name in trained)
    attentions = {f"{k}.self_attention.{p}" for k in (0, 1) for p in "qkvo"}
    assert layers == attentions | {"output_patch_embedding.output_layer"}
    untouched = net.quantiles(network.eval(), context, 5)  # they begin at zero
    torch.testing.assert_close(untouched, plain, rtol=1e-5, atol=1e-5)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    other = net.quantiles(network, context, 5)
    assert not torch.allclose(other, plain)
    assert adapted.merged() is network
    assert set(network.state_dict()) == names
    torch.testing.assert_close(net.quantiles(network, context, 5), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("embedding", {"encoder", "output_patch_embedding"}),
        ("backbone", {"shared", "input_patch_embedding", "output_patch_embedding"}),
    ],
)
def test_what_is_frozen_leaves_the_rest_to_train(freeze: Any, trained: set[str]) -> None:
    from foresweep.models.chronos2 import network as net

    network = make_network()
    tune(network, Chronos2Config(pretrained="here", freeze=freeze), net.layers(1))
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == trained


def test_the_lower_half_of_the_blocks_can_be_frozen() -> None:
    from foresweep.models.chronos2 import network as net

    network = make_network(num_layers=3)
    tune(network, Chronos2Config(pretrained="here", freeze="lower_half"), net.layers(3))
    frozen = {".".join(n.split(".")[:3]) for n, p in network.named_parameters() if p.requires_grad}
    assert "encoder.block.0" not in frozen
    assert {"encoder.block.1", "encoder.block.2", "encoder.final_layer_norm.weight"} <= frozen
    assert not any(n.startswith(("shared", "input_patch")) for n in frozen)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    generator = torch.Generator().manual_seed(0)
    context = torch.randn(3, 2, 48, generator=generator)
    labels = torch.randn(3, 2, 5, generator=generator)
    found = []
    for again in (False, True):
        network = make_network(spread=5.0, dropout=0.1).train()
        if again:
            recompute(network.encoder.block)
        with seeded(3, Resources()):
            net.loss(network, context, labels).backward()
        found.append({n: p.grad for n, p in network.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)


# --- weights in the authors' format ----------------------------------------------------------


def test_weights_of_the_authors_forecast_as_in_the_authors_pipeline(
    folder: Path, train: TrainWindows
) -> None:
    import torch
    from chronos import BaseChronosPipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = resolved(pretrained=str(folder), target="overlapping", context_length=48)
    with seeded(0, Resources()):
        predictor = start(TrainingJob(train, config, horizon=5, out=Path())).predictor()
    windows = Windows(train.panel, train.split, train.split.part("tune"))
    context = windows.context(48, slice(0, 6))
    levels = (0.01, *(k / 100 for k in range(5, 100, 5)), 0.99)
    found = predictor.predict(context, horizon=5, levels=levels, seed=0)

    pipeline = BaseChronosPipeline.from_pretrained(folder)
    channels, _ = encode(predictor.view, context.values, 48)
    theirs = pipeline.predict(torch.from_numpy(channels).float(), prediction_length=5)
    own = np.stack([t.numpy()[range(5), :, range(5)] for t in theirs])  # channel h at lead h
    wanted = context.last_close[:, None, None] * np.exp(np.sort(own, axis=-1) / 100)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-5)


def test_a_network_left_in_training_mode_forecasts_without_dropout(train: TrainWindows) -> None:
    config = resolved(**SMALL, dropout=0.9)
    with seeded(0, Resources()):
        learner = start(TrainingJob(train, config, horizon=5, out=Path()))
    predictor: Chronos2Predictor = learner.predictor()
    windows = Windows(train.panel, train.split, train.split.part("tune"))
    context = windows.context(48, slice(0, 4))
    learner.module.eval()
    calm = predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0).values
    learner.module.train()
    for seed in (0, 1):
        again = predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=seed).values
        np.testing.assert_array_equal(again, calm)
    assert learner.module.training


def test_a_horizon_beyond_the_trained_one_is_refused_and_a_shorter_one_is_its_beginning(
    train: TrainWindows,
) -> None:
    with seeded(0, Resources()):
        predictor = start(TrainingJob(train, resolved(**SMALL), horizon=5, out=Path())).predictor()
    windows = Windows(train.panel, train.split, train.split.part("tune"))
    context = windows.context(48, slice(0, 4))
    full = predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0).values
    short = predictor.predict(context, horizon=2, levels=DEFAULT_LEVELS, seed=0).values
    np.testing.assert_array_equal(short, full[:, :2])
    with pytest.raises(ForecastError, match="5 bars ahead, asked for 6"):
        predictor.predict(context, horizon=6, levels=DEFAULT_LEVELS, seed=0)


def test_the_network_is_asked_for_as_many_bars_as_it_was_trained_on(train: TrainWindows) -> None:
    import torch

    from foresweep.models.chronos2 import network as net

    config = resolved(**SMALL, target="return", prediction_length=20)
    with seeded(0, Resources()):
        predictor = start(TrainingJob(train, config, horizon=5, out=Path())).predictor()
    windows = Windows(train.panel, train.split, train.split.part("tune"))
    context = windows.context(48, slice(0, 4))
    found = predictor.predict(context, horizon=1, levels=(0.5,), seed=0).values[:, 0, 0]
    asked = torch.from_numpy(encode(predictor.view, context.values, 48)[0]).float()
    with torch.no_grad():
        whole, part = (
            net.quantiles(predictor.network.eval(), asked, length)[:, 0, 0, 10].numpy()
            for length in (20, 5)
        )
    np.testing.assert_allclose(np.log(found / context.last_close) * 100, whole, atol=1e-5)
    assert np.abs(whole - part).max() > 1e-4
