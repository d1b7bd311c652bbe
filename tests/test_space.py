"""Spaces: reading, drawing, counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.errors import SpaceError, UsageError
from foresweep.space import (
    Choice,
    Dimension,
    Float,
    Int,
    SearchSpace,
    as_dimension,
    parse_space_file,
)

TEXT = """
model = "toto"
[[priority]]
name = "paper"
source = "why"
config = { lr = 1e-4, context_length = 512 }
scratch = { lr = 2e-3, patch_size = 8 }
[full.loss_type]
choices = ["huber", "quantile"]
[full.huber_delta]
choices = [0.01, 0.05]
when = { loss_type = "huber" }
[full_scratch.patch_size]
choices = [8, 16]
[space.lr]
low = 1e-5
high = 1e-3
log = true
[space.batch_size]
low = 8
high = 64
step = 8
"""


def test_what_holds_from_scratch_overrides_what_holds_for_both() -> None:
    assert parse_space_file(TEXT, "scratch").entries["priority"][0].config == {
        "lr": 2e-3,
        "context_length": 512,
        "patch_size": 8,
    }
    assert parse_space_file(TEXT, "pretrained").entries["priority"][0].config["lr"] == 1e-4


def test_a_condition_that_fails_makes_no_duplicate_configs() -> None:
    assert parse_space_file(TEXT, "pretrained").full.size == 3
    assert parse_space_file(TEXT, "scratch").full.size == 6


@given(seed=st.integers(0, 2**32 - 1))
def test_draws_stay_inside_their_ranges(seed: int) -> None:
    drawn = parse_space_file(TEXT, "scratch").space.sample(np.random.default_rng(seed))
    assert 1e-5 <= drawn["lr"] <= 1e-3
    assert drawn["batch_size"] in range(8, 65, 8)


def test_log_draws_are_even_in_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    drawn = [Float(1e-6, 1e-2, log=True).sample(rng) for _ in range(2000)]
    assert abs(np.mean(np.log10(drawn)) + 4) < 0.1


@given(seed=st.integers(0, 999))
def test_whole_numbers_in_logs_stay_on_their_steps(seed: int) -> None:
    drawn = Int(16, 256, 16, log=True).sample(np.random.default_rng(seed))
    assert drawn in range(16, 257, 16)


def test_a_grid_of_ranges_is_refused() -> None:
    with pytest.raises(SpaceError, match="lr"):
        list(SearchSpace({"lr": Float(1, 2)}).grid())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = ", "not valid TOML"),
        ("x = 1", "model"),
        ('model = "toto"\n[[quick]]\nname = "a"', "source"),
        ('model = "toto"\n[space.lr]\nlow = 2.0\nhigh = 1.0', "no range"),
        ('model = "toto"\n[space.lr]\nlow = 0.0\nhigh = 1.0\nlog = true', "in logs"),
        ('model = "toto"\n[space.lr]\nlow = 0.1\nhigh = 1.0\nstep = 0.1', "whole numbers"),
        ('model = "toto"\n[space.lr]\nlow = "a"\nhigh = 1.0', "no range of numbers"),
        ('model = "toto"\n[space.lr]\nchoices = []', "nothing to choose"),
        ('model = "toto"\n[space.lr]\nhgih = 3', "did you mean 'high'"),
        ('model = "toto"\n[spce.lr]\nlow = 3', "did you mean 'space'"),
    ],
)
def test_a_broken_file_says_where(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_space_file(text, "scratch")


def test_a_lone_value_is_fixed_and_a_list_is_a_choice() -> None:
    space = parse_space_file(
        'model = "toto"\n[space]\nlr = 3\nbatch_size = [8, 16]', "scratch"
    ).space
    assert space.dimensions == {"lr": Choice((3,)), "batch_size": Choice((8, 16))}


def test_a_condition_may_name_several_values() -> None:
    space = SearchSpace(
        {"loss": Choice(("huber", "tilted", "mse")), "delta": Choice((0.1,))},
        {"delta": {"loss": ["huber", "tilted"]}},
    )
    assert [c.get("delta") for c in space.grid()] == [0.1, 0.1, None]


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("1e-5..1e-3:log", Float(1e-5, 1e-3, log=True)),
        ("0.0..0.2", Float(0.0, 0.2)),
        ("64..512:32", Int(64, 512, 32)),
        ("8..64:log", Int(8, 64, log=True)),
        ([8, 16], Choice((8, 16))),
        (3e-4, Choice((3e-4,))),
        ("cosine", Choice(("cosine",))),
    ],
)
def test_what_is_set_is_a_range_a_choice_or_fixed(value: object, means: Dimension) -> None:
    assert as_dimension("x", value) == means


@pytest.mark.parametrize("value", ["1e-3..1e-5", "a..b", "0..1:log", "0.1..0.5:0.1"])
def test_what_is_set_wrongly_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(SpaceError, match=f"--set lr={value}"):
        as_dimension("lr", value)


def test_a_choice_keeps_its_values() -> None:
    rng = np.random.default_rng(1)
    assert {Choice(("a", "b")).sample(rng) for _ in range(50)} == {"a", "b"}


def test_a_dimension_reads_like_words() -> None:
    assert str(Float(1e-5, 1e-2, log=True)) == "1e-05 to 0.01 (log)"
    assert str(Int(8, 64, 8)) == "8 to 64 in steps of 8"
    assert str(Choice(("huber", "mse"))) == "huber, mse"
