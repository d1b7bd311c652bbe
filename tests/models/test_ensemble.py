"""An ensemble mixes quantiles, keeps them rising, and knows its members by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Windows
from foresweep.errors import CheckpointError, ConfigError
from foresweep.models.base import DEFAULT_LEVELS, Checkpoint, Resources
from foresweep.models.baselines.naive import Drift, LastValue
from foresweep.models.checkpoint import add_json, json_hash, read_checkpoint, write_checkpoint
from foresweep.models.ensemble import MEMBERS, Member, combine, members_of, write_ensemble
from foresweep.models.registry import get_model, model_names
from panels import make_panel

PANEL = make_panel(2, 400, seed=3)
SPLIT = make_split(PANEL, Cut(3))
RNG = np.random.default_rng(5)
FORECASTS = [np.sort(RNG.lognormal(0, 0.2, (6, 3, 9)), axis=-1) for _ in range(4)]


def baseline(folder: Path, name: str, **config: object) -> Checkpoint:
    return write_checkpoint(folder / name / "checkpoint", model=name, config=config)


def with_file(folder: Path, name: str, value: float) -> Checkpoint:
    """A checkpoint that is more than its config."""
    made = baseline(folder, name, context_length=32)
    return add_json(made, "fit.json", {"value": value})


def members(folder: Path) -> list[Member]:
    return [
        Member(with_file(folder, "drift", 1.0), 0.75, "drift"),
        Member(baseline(folder, "last-value", context_length=64), 0.25, "naive"),
    ]


def ask(checkpoint: Checkpoint):
    windows = Windows(PANEL, SPLIT, SPLIT.part("val"))
    predictor = get_model("ensemble").load(checkpoint, Resources())
    context = windows.context(predictor.context_length, slice(0, 5))
    return context, predictor.predict(context, horizon=3, levels=DEFAULT_LEVELS, seed=0).values


@pytest.mark.parametrize("method", ["mean", "median", "greedy"])
@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_a_mix_of_rising_quantiles_rises(method, num):
    mixed = combine(FORECASTS[:num], [1 / num] * num, method)
    assert (np.diff(mixed, axis=-1) >= 0).all()


def test_the_mean_weighs_level_by_level_and_the_median_counts_each_once():
    weighed = combine(FORECASTS[:2], [0.25, 0.75], "greedy")
    np.testing.assert_allclose(weighed, 0.25 * FORECASTS[0] + 0.75 * FORECASTS[1])
    middle = combine(FORECASTS[:3], [0.9, 0.05, 0.05], "median")
    np.testing.assert_array_equal(middle, np.median(FORECASTS[:3], axis=0))


def test_what_is_saved_forecasts_the_mix_of_its_members(tmp_path):
    saved = write_ensemble(tmp_path / "e" / "checkpoint", members(tmp_path), "greedy", {})
    context, found = ask(read_checkpoint(saved.path))
    parts = [
        family.predictor(family.Config(context_length=n)).predict(
            context.last(n), horizon=3, levels=DEFAULT_LEVELS, seed=0
        )
        for family, n in ((Drift(), 32), (LastValue(), 64))
    ]
    np.testing.assert_allclose(found, 0.75 * parts[0].values + 0.25 * parts[1].values, rtol=1e-12)
    assert get_model("ensemble").name == "ensemble"


def test_its_hash_is_that_of_members_json_whatever_the_order_or_the_place(tmp_path):
    ours = members(tmp_path / "here")
    theirs = members(tmp_path / "there")[::-1]
    saved = write_ensemble(tmp_path / "e", ours, "mean", {})
    said = members_of(ours, "mean")
    assert said == members_of(theirs, "mean")
    assert json_hash(said) == saved.card["files"][MEMBERS]
    assert json.loads((saved.path / MEMBERS).read_text()) == said
    assert json_hash(members_of(ours, "median")) != json_hash(said)


def test_a_baseline_that_is_only_its_config_needs_no_file_of_its_own(tmp_path):
    saved = write_ensemble(tmp_path / "e" / "checkpoint", members(tmp_path), "greedy", {})
    before = ask(saved)[1]
    shutil.rmtree(tmp_path / "last-value")
    np.testing.assert_array_equal(ask(saved)[1], before)


def test_a_member_that_is_gone_is_named_with_its_run_and_place(tmp_path):
    saved = write_ensemble(tmp_path / "e" / "checkpoint", members(tmp_path), "greedy", {})
    shutil.rmtree(tmp_path / "drift")
    says = r"needs the checkpoint of run drift \(drift, weight 0.75\), which is not at .*drift"
    with pytest.raises(CheckpointError, match=says):
        get_model("ensemble").load(saved, Resources())


def test_a_member_that_was_trained_again_is_not_taken_for_the_one_meant(tmp_path):
    saved = write_ensemble(tmp_path / "e" / "checkpoint", members(tmp_path), "greedy", {})
    shutil.rmtree(tmp_path / "drift")
    with_file(tmp_path, "drift", 2.0)
    with pytest.raises(CheckpointError, match=r"is not the member .* was trained again"):
        get_model("ensemble").load(saved, Resources())


def test_members_are_found_when_the_folder_of_all_runs_was_moved(tmp_path):
    old = tmp_path / "runs"
    write_ensemble(old / "e" / "checkpoint", members(old), "greedy", {})
    old.rename(tmp_path / "moved")
    saved = read_checkpoint(tmp_path / "moved" / "e" / "checkpoint")
    assert ask(saved)[1].shape == (5, 3, 9)


def test_an_ensemble_is_offered_to_no_sweep_and_says_how_it_is_made():
    assert "ensemble" not in model_names()
    model = get_model("ensemble")
    with pytest.raises(ConfigError, match="foresweep ensemble"):
        model.resolve(model.Config(), None)
