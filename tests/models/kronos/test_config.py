"""Kronos' hyperparameters: filled in by size or weights, contradictions refused by name."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from foresweep.errors import ConfigError
from foresweep.models.base import Facts, as_dict, make_config
from foresweep.models.kronos.config import (
    ARCHITECTURE,
    KronosConfig,
    architecture_of,
    build,
    longer,
    positions_of,
    resolve_pretrained,
    resolve_scratch,
    size_of,
    tokenizer_steps,
)
from foresweep.models.kronos.model import Kronos
from foresweep.models.training.config import changed
from foresweep.space import Choice, Start, parse_space_file

FACTS = Facts(horizon=5, max_context=1024, train_bars=8000)


def scratch(facts: Facts = FACTS, **values: Any) -> KronosConfig:
    return resolve_scratch(make_config(KronosConfig, values, model="kronos"), facts)


def pretrained(facts: Facts = FACTS, **values: Any) -> KronosConfig:
    values = {"pretrained": "published", "size": None, "context_length": 90} | values
    config = make_config(KronosConfig, values, model="kronos")
    return resolve_pretrained(config, facts, architecture_of(scratch(size="small")))


def test_from_scratch_everything_is_filled_in_by_size() -> None:
    found = as_dict(scratch(size="tiny"))
    unset = {k for k, v in found.items() if v is None}
    off = {"ema_decay", "patience", "lora_r", "lora_alpha", "lora_dropout", "top_k"}
    assert unset == {"pretrained", "max_epochs"} | off
    assert {k: found[k] for k in ARCHITECTURE} == dict(size_of("tiny").fields)
    assert (found["target"], found["prediction_length"]) == ("return", 5)


def test_resolving_twice_changes_nothing() -> None:
    once = scratch(size="tiny", tokenizer_fraction=0.3)
    assert resolve_scratch(once, FACTS) == once
    tuned = pretrained(freeze_tokenizer=False)
    assert resolve_pretrained(tuned, FACTS, architecture_of(scratch(size="small"))) == tuned


@pytest.mark.parametrize(
    ("size", "predictor", "tokenizer"),
    [("mini", 4.1, 4.0), ("small", 24.7, 4.0), ("base", 102.3, 4.0)],
)
def test_mini_small_and_base_have_the_published_millions_of_parameters(
    size: str, predictor: float, tokenizer: float
) -> None:
    import torch

    with torch.device("meta"):
        nets = build(architecture_of(scratch(size=size)))
    counts = [sum(p.numel() for p in net.parameters()) for net in nets.parts().values()]
    assert [round(n / 1e6, 1) for n in counts] == [tokenizer, predictor]


def test_the_weights_fix_the_architecture() -> None:
    found = pretrained()
    assert {k: getattr(found, k) for k in ARCHITECTURE} == dict(size_of("small").fields)
    assert (found.target, found.freeze_tokenizer, found.dropout) == ("price", True, 0.25)
    assert tokenizer_steps(found) == 0
    with pytest.raises(ConfigError, match=r"num_layers=4 contradicts .* have num_layers=8"):
        pretrained(num_layers=4)
    assert pretrained(num_layers=8) == found


def test_a_size_beside_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="size='tiny' has no effect"):
        pretrained(size="tiny")


def test_a_frozen_tokenizer_from_scratch_is_refused() -> None:
    with pytest.raises(ConfigError, match="random tokenizer"):
        scratch(freeze_tokenizer=True)


@pytest.mark.parametrize("name", ["tokenizer_lr", "tokenizer_fraction"])
def test_a_tokenizer_setting_beside_a_frozen_tokenizer_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0.1 has no effect"):
        pretrained(**{name: 0.1})
    assert getattr(pretrained(freeze_tokenizer=False, **{name: 0.1}), name) == 0.1


def test_a_training_window_must_fit_512_bars() -> None:
    assert scratch(context_length=507).context_length == 507
    with pytest.raises(ConfigError, match=r"context_length=508 and prediction_length=5 .* at most"):
        scratch(context_length=508)
    with pytest.raises(ConfigError, match=r"of at most 448 or a shorter prediction_length"):
        scratch(context_length=449, prediction_length=64)
    with pytest.raises(ConfigError, match="at most 448"):
        scratch(Facts(64, 1024, 8000), context_length=500)


def test_a_longer_horizon_than_was_trained_slides_beyond_them() -> None:
    found = scratch(Facts(64, 1024, 8000), context_length=500, prediction_length=5)
    assert (found.context_length, positions_of(found)) == (500, 512)


def test_mini_holds_2048_bars() -> None:
    assert scratch(Facts(5, 4096, 8000), size="mini", context_length=2000).d_model == 256
    mini = architecture_of(scratch(size="mini"))
    config = KronosConfig(pretrained="mini", size=None, context_length=2000)
    facts = Facts(5, 4096, 8000)
    assert resolve_pretrained(config, facts, mini).context_length == 2000
    with pytest.raises(ConfigError, match="512 bars"):
        resolve_pretrained(config, facts, architecture_of(scratch(size="small")))


def test_zero_shot_may_fill_every_position_and_is_one_config() -> None:
    found = pretrained(context_length=512, finetune="none")
    assert found == pretrained(Facts(5, 1024, 999), context_length=512, finetune="none")
    assert (found.max_steps, found.freeze_tokenizer, found.target) == (None, None, "price")
    for name, value in (("freeze_tokenizer", False), ("prediction_length", 3), ("lr", 0.1)):
        with pytest.raises(ConfigError, match=f"{name}={value} has no effect"):
            pretrained(finetune="none", **{name: value})
    with pytest.raises(ConfigError, match="context_length=513 are more than the 512"):
        pretrained(context_length=513, finetune="none")


def test_top_k_and_top_p_are_not_given_together() -> None:
    assert scratch(top_k=63).top_k == 63
    with pytest.raises(ConfigError, match=r"top_p=0\.9 has no effect beside top_k=5"):
        scratch(top_k=5, top_p=0.9)
    with pytest.raises(ConfigError, match=r"top_k=64 has no effect on 64 tokens .*at most 63"):
        scratch(top_k=64)


def test_bf16_is_taken_by_wide_nets_where_it_is_fast() -> None:
    fast = Facts(5, 1024, 8000, fast_bf16=True)
    assert scratch(fast, size="mini").precision == "bf16"
    assert scratch(fast, size="tiny").precision == "fp32"
    assert scratch(size="mini").precision == "fp32"


def test_a_context_beyond_the_sweeps_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_context 64"):
        scratch(Facts(5, 64, 8000), context_length=65)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 36}, "d_model=36 .* multiple of 8"),
        ({"d_model": 40, "num_heads": 4}, None),
        ({"d_model": 48, "num_heads": 5}, "5 heads"),
        ({"tokenizer_d_model": 20}, "tokenizer_d_model=20"),
    ],
)
def test_widths_that_heads_cannot_share_are_refused(
    values: dict[str, int], message: str | None
) -> None:
    if message is None:
        build(architecture_of(scratch(**values)))
        return
    with pytest.raises(ConfigError, match=message):
        scratch(**values)


@pytest.mark.parametrize(
    ("steps", "fraction", "wanted"), [(300, 0.5, 150), (2, 0.9, 1), (1, 0.5, 0), (10, 0.25, 2)]
)
def test_both_stages_share_the_steps_and_the_predictor_gets_one_at_least(
    steps: int, fraction: float, wanted: int
) -> None:
    assert tokenizer_steps(scratch(max_steps=steps, tokenizer_fraction=fraction)) == wanted


def test_an_epoch_counts_context_and_labels() -> None:
    found = scratch(context_length=90, prediction_length=10, batch_size=16, max_epochs=3)
    assert found.max_steps == 3 * 5  # 8000 bars / (16 windows * 100 bars)


@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_every_entry_of_the_space_file_resolves(start: Start) -> None:
    text = (resources.files("foresweep.models.kronos") / "spaces" / "kronos.toml").read_text()
    file = parse_space_file(text, start)
    resolve = scratch if start == "scratch" else pretrained
    assert file.model == "kronos"
    assert len(file.entries["priority"]) >= 3
    assert len(file.entries["quick"]) in (2, 3)
    for entry in (e for mode in ("priority", "quick") for e in file.entries[mode]):
        resolve(**entry.config)
    for point in list(file.full.grid())[::97]:
        resolve(**point)


@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_every_corner_of_the_ranges_resolves(start: Start) -> None:
    text = (resources.files("foresweep.models.kronos") / "spaces" / "kronos.toml").read_text()
    space = parse_space_file(text, start).space
    base = scratch() if start == "scratch" else pretrained()
    for name, dimension in space.dimensions.items():
        ends = (
            dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        )
        for value in ends:
            extra = dict(space.when.get(name, {}))
            make_config(KronosConfig, {name: value, **extra}, model="kronos")
    assert changed(base, context_length=448, prediction_length=64).context_length == 448


def test_the_family_resolves_through_its_door() -> None:
    config = KronosConfig(max_steps=7)
    assert Kronos().resolve(config, FACTS) == resolve_scratch(config, FACTS)
    assert Kronos().weights_hash(config) == ""


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.37])
@pytest.mark.parametrize("steps", [301, 450, 9999])
def test_a_training_that_goes_on_keeps_the_tokenizer_it_has(fraction: float, steps: int) -> None:
    config = scratch(size="tiny", max_steps=300, tokenizer_fraction=fraction)
    longer_config = longer(config, steps)
    assert longer_config.max_steps == steps
    assert tokenizer_steps(longer_config) == tokenizer_steps(config)
    assert resolve_scratch(longer_config, FACTS) == longer_config


@pytest.mark.parametrize("steps", [1, 60, 150])
def test_a_training_cannot_go_on_to_fewer_steps_than_its_tokenizer_has_had(steps: int) -> None:
    config = scratch(size="tiny", max_steps=300, tokenizer_fraction=0.5)
    with pytest.raises(ConfigError, match=f"max_steps={steps} leaves .* 150 of 300; go on to 151"):
        longer(config, steps)
    assert tokenizer_steps(longer(config, 151)) == 150
    one = scratch(size="tiny", max_steps=1, tokenizer_fraction=0.5)  # all of it is the predictor's
    assert [tokenizer_steps(longer(one, steps)) for steps in (1, 2, 9999)] == [0, 0, 0]
