"""How the shared hyperparameters are settled, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foresweep.errors import ConfigError
from foresweep.models.base import Facts, config_class, config_hash, hyper, make_config
from foresweep.models.training.config import TrainingConfig, check_mode, resolve_training

FACTS = Facts(horizon=5, max_context=512, train_bars=10_000)


@config_class
class FamilyConfig(TrainingConfig):
    """A family with a field of its own of each kind."""

    depth: int | None = hyper(None, "layers", stage="architecture", probe=(1, 2))
    loss: str = hyper("plain", "loss", probe=("plain", "other"))
    view: str = hyper("return", "what it sees", stage="view", probe=("return", "price"))


def tuned(**values: Any) -> FamilyConfig:
    """A config that starts from weights, settled as a family does it."""
    given = {"pretrained": "published", "size": None} | values
    config = make_config(FamilyConfig, given, model="family")
    check_mode(config)
    return resolve_training(config, FACTS)


def test_one_epoch_is_the_bars_of_train_over_the_bars_of_a_batch() -> None:
    config = TrainingConfig(max_epochs=3, batch_size=10, context_length=100)
    assert resolve_training(config, FACTS).max_steps == 30
    assert resolve_training(config, FACTS, window_bars=96).max_steps == 33
    assert resolve_training(config, FACTS).max_epochs is None


def test_epochs_of_a_small_panel_are_no_fewer_steps_than_the_sweep_says() -> None:
    few = TrainingConfig(max_epochs=3, batch_size=10, context_length=100)
    floored = replace(FACTS, step_floor=200)
    assert resolve_training(few, floored).max_steps == 200
    assert resolve_training(few, replace(floored, step_cap=50)).max_steps == 50  # asked by name
    assert resolve_training(replace(few, max_epochs=30), floored).max_steps == 300
    assert resolve_training(TrainingConfig(max_steps=9), floored).max_steps == 9
    tuned = replace(few, pretrained="published", size=None)
    assert resolve_training(tuned, floored).max_steps == 30


def test_steps_have_a_default_by_size_and_a_cap_by_the_sweep() -> None:
    assert resolve_training(TrainingConfig(), FACTS).max_steps == 300
    assert resolve_training(TrainingConfig(size="small"), FACTS).max_steps == 1000
    assert resolve_training(TrainingConfig(), replace(FACTS, step_cap=50)).max_steps == 50
    assert resolve_training(TrainingConfig(max_steps=9), replace(FACTS, step_cap=50)).max_steps == 9


def test_resolving_twice_changes_nothing() -> None:
    once = resolve_training(TrainingConfig(max_epochs=2), FACTS)
    assert resolve_training(once, FACTS) == once


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_steps": 10, "max_epochs": 2}, "max_steps=10 and max_epochs=2 exclude each other"),
        ({"context_length": 513}, "context_length=513 is more than this sweep's max_context 512"),
        ({"pretrained": "published"}, "size='tiny' has no effect with pretrained='published'"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve_training(TrainingConfig(**values), FACTS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"finetune": "none"}, "finetune='none' would forecast with random weights"),
        ({"finetune": "lora"}, "finetune='lora' would keep a backbone of random weights"),
        ({"freeze": "embedding"}, "freeze='embedding' would keep a backbone of random weights"),
        ({"lora_r": 4}, "lora_r=4 has no effect with finetune='full'; leave it out"),
    ],
)
def test_modes_that_need_weights_are_refused_from_scratch(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_mode(TrainingConfig(**values))
    with pytest.raises(ConfigError, match=words):
        resolve_training(TrainingConfig(**values), FACTS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"finetune": "lora", "freeze": "backbone"}, "freeze='backbone' has no effect with"),
        ({"finetune": "none", "lr": 0.1}, "lr=0.1 has no effect with finetune='none'"),
        ({"finetune": "none", "loss": "other"}, "loss='other' has no effect"),
        ({"finetune": "none", "freeze": "backbone"}, "freeze='backbone' has no effect"),
        (
            {"finetune": "none", "max_steps": 5, "time_scale": 2},
            "max_steps=5, time_scale=2 have no effect with finetune='none', which takes no step",
        ),
    ],
)
def test_fields_without_effect_over_weights_are_refused_by_name(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        tuned(**values)


def test_the_lower_half_of_one_block_is_refused() -> None:
    config = FamilyConfig(pretrained="published", size=None, freeze="lower_half")
    check_mode(config, blocks=2)
    with pytest.raises(ConfigError, match="freezes none"):
        check_mode(config, blocks=1)


def test_zero_shot_has_one_config_and_one_hash_whatever_a_family_filled_in() -> None:
    plain = tuned(finetune="none")
    assert plain.max_steps is None
    filled = replace(plain, loss="filled", lr=0.3)  # type: ignore[type-var]
    again = resolve_training(filled, FACTS)
    assert again == plain == resolve_training(plain, FACTS)
    assert config_hash(again, model="family") == config_hash(plain, model="family")
    other = tuned(finetune="none", view="price")
    assert config_hash(other, model="family") != config_hash(plain, model="family")


def test_lora_is_filled_in_as_the_authors_of_chronos_2_have_it() -> None:
    found = tuned(finetune="lora")
    assert (found.lora_r, found.lora_alpha, found.lora_dropout) == (8, 16, 0.0)
    found = tuned(finetune="lora", lora_r=4, lora_dropout=0.1)
    assert (found.lora_r, found.lora_alpha, found.lora_dropout) == (4, 8, 0.1)
    assert tuned().lora_r is None


@pytest.mark.parametrize(
    ("fast", "width", "asked", "found"),
    [
        (True, 256, None, "bf16"),
        (True, 255, None, "fp32"),
        (True, None, None, "fp32"),
        (False, 768, None, "fp32"),
        (False, 64, "bf16", "bf16"),
        (True, 768, "fp32", "fp32"),
    ],
)
def test_precision_is_bf16_where_width_and_device_make_it_pay(
    fast: bool, width: int | None, asked: Any, found: str
) -> None:
    facts = replace(FACTS, fast_bf16=fast)
    config = resolve_training(TrainingConfig(precision=asked), facts, width=width)
    assert config.precision == found
