"""What of a pretrained Kronos is trained: everything, adapters, some layers, nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kronos_finance._vendor.kronos_model.kronos import Kronos as TheirKronos
from kronos_finance._vendor.kronos_model.kronos import KronosPredictor as TheirPredictor
from kronos_finance._vendor.kronos_model.kronos import KronosTokenizer

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import ConfigError
from foresweep.models.base import Checkpoint, Resources, TrainingJob
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.models.kronos.config import architecture_of, build, find_pretrained, layers_of
from foresweep.models.kronos.model import Kronos, KronosPredictor
from kronos_tiny import HORIZON, Notes, config, forecast, load, train, windows_of
from panels import make_panel

PANEL = make_panel(2, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights as the authors' `save_pretrained` writes them."""
    at = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    nets = build(architecture_of(config(num_layers=2, dropout=0.1, token_bits=5)))
    nets.tokenizer.save_pretrained(at / "tokenizer")
    nets.predictor.save_pretrained(at / "model")
    return at


def learnt(folder: Path, done: Checkpoint) -> set[str]:
    """Names of the tensors that are no longer the given ones."""
    given = find_pretrained(str(folder)).load().state()
    found = read_weights(done)
    assert found.keys() == given.keys(), "what is written is a plain pair of nets"
    return {n for n, tensor in found.items() if not np.array_equal(tensor, given[n].numpy())}


def parts(names: set[str], depth: int = 2) -> set[str]:
    return {".".join(n.split(".")[:depth]) for n in names}


def test_the_authors_own_forecast_comes_of_their_folder(folder: Path, tmp_path: Path) -> None:
    """Written by their code, loaded and forecast by ours, against their predictor's own frame."""
    theirs = TheirPredictor(
        TheirKronos.from_pretrained(folder / "model"),
        KronosTokenizer.from_pretrained(folder / "tokenizer"),
        device="cpu",
    )
    made = config(pretrained=str(folder), finetune="none", num_samples=6, context_length=64)
    ours = load(train(PANEL, made, tmp_path / "zero"))
    windows = windows_of(PANEL)
    for n in (0, 7):
        context = windows.context(64, slice(n, n + 1))
        torch.manual_seed(5)
        found = ours.paths(context, horizon=HORIZON, seed=0, draw=multinomial)
        torch.manual_seed(5)
        wanted = their_closes(theirs, context, num_samples=6)
        np.testing.assert_allclose(found[0].mean(axis=0), wanted, rtol=1e-5)
        assert found[0].std(axis=0).min() > 0


def multinomial(probs: torch.Tensor, step: int, half: int) -> torch.Tensor:
    return torch.multinomial(probs, 1)[:, 0]


def their_closes(predictor: TheirPredictor, context: Context, num_samples: int) -> np.ndarray:
    """[H] mean closes of the package's predictor for one window."""
    frame = predictor.predict(
        pd.DataFrame(context.values[0], columns=list(context.columns)),
        pd.Series(context.timestamps[0]),
        pd.Series(context.future_timestamps[0, :HORIZON]),
        pred_len=HORIZON, T=1.0, top_p=1.0, sample_count=num_samples, verbose=False,
    )  # fmt: skip
    closes: np.ndarray = frame["close"].to_numpy()
    return closes


def test_zero_shot_keeps_every_bit_and_is_scored_once(folder: Path, tmp_path: Path) -> None:
    split, notes = make_split(PANEL, Cut(HORIZON)), Notes()
    windows = TrainWindows(PANEL, split, split.part("train"))
    done = Kronos().train(TrainingJob(
        windows, config(pretrained=str(folder), finetune="none"), Resources(), seed=0,
        horizon=HORIZON, score=notes.score, report=notes.report, out=tmp_path / "zero",
    ))  # fmt: skip
    assert learnt(folder, read_checkpoint(done.path)) == set()
    assert (notes.steps, notes.scored, done.card["fitted"]["step"]) == ([0], 1, 0)


@pytest.mark.slow  # peft alone takes seconds to import
def test_lora_leaves_all_but_the_linear_layers_alone_and_is_merged(
    folder: Path, tmp_path: Path
) -> None:
    made = config(pretrained=str(folder), finetune="lora", lora_r=2, lora_alpha=8)
    names = learnt(folder, train(PANEL, made, tmp_path / "lora"))
    assert {n.split(".")[-2] for n in names} == set(
        layers_of(build(find_pretrained(str(folder)).architecture).predictor).adapted
    )
    assert parts(names) == {"predictor.transformer", "predictor.dep_layer"}


@pytest.mark.slow
def test_what_is_scored_while_adapters_hang_in_is_what_is_written(
    folder: Path, tmp_path: Path
) -> None:
    made = config(pretrained=str(folder), finetune="lora", lora_alpha=64, lora_dropout=0.5)
    split, windows = make_split(PANEL, Cut(HORIZON)), windows_of(PANEL)
    scored = []

    class Forecasts(Notes):
        def score(self, predictor: Any) -> Any:
            scored.append(forecast(predictor, windows, first=6))
            return super().score(predictor)

    notes = Forecasts()
    done = Kronos().train(TrainingJob(
        TrainWindows(PANEL, split, split.part("train")), made, Resources(), seed=0,
        horizon=HORIZON, score=notes.score, report=notes.report, out=tmp_path / "lora",
    ))  # fmt: skip
    written = forecast(load(read_checkpoint(done.path)), windows, first=6)
    np.testing.assert_allclose(scored[-1], written, rtol=1e-6)
    assert not np.allclose(scored[0], written, rtol=1e-6)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("embedding", {"transformer.0", "transformer.1", "norm.weight", "dep_layer", "head"}),
        ("lower_half", {"transformer.1", "norm.weight", "dep_layer", "head"}),
        ("backbone", {"embedding", "time_emb", "norm.weight", "dep_layer", "head"}),
    ],
)
def test_frozen_layers_keep_every_bit(
    freeze: Any, trained: set[str], folder: Path, tmp_path: Path
) -> None:
    made = config(pretrained=str(folder), freeze=freeze)
    names = {
        n.removeprefix("predictor.") for n in learnt(folder, train(PANEL, made, tmp_path / "f"))
    }
    found = {n if n.startswith("norm") else n.split(".")[0] for n in names}
    found = found - {"transformer"} | parts({n for n in names if n.startswith("transformer")})
    assert found == trained


def test_half_of_one_block_cannot_be_frozen(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build(architecture_of(config())).predictor.save_pretrained(tmp_path / "model")
    build(architecture_of(config())).tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="freeze='lower_half' of 1 block freezes none"):
        config(pretrained=str(tmp_path), freeze="lower_half")


def test_gradient_checkpointing_changes_no_weight(tmp_path: Path) -> None:
    split = make_split(PANEL, Cut(HORIZON))
    windows = TrainWindows(PANEL, split, split.part("train"))

    def weights(resources: Resources, name: str, **values: Any) -> dict[str, Any]:
        done = Kronos().train(TrainingJob(
            windows, config(**values), resources, seed=0, horizon=HORIZON,
            score=Notes().score, report=Notes().report, out=tmp_path / name,
        ))  # fmt: skip
        return read_weights(done)

    plain = weights(Resources(), "plain", dropout=0.3)
    saved = weights(Resources(gradient_checkpointing=True), "saved", dropout=0.3)
    assert all(np.array_equal(plain[n], saved[n]) for n in plain)


def test_bf16_trains_the_predictor_alone(tmp_path: Path) -> None:
    full, half = (
        read_weights(train(PANEL, config(precision=p), tmp_path / p)) for p in ("fp32", "bf16")
    )
    same = {n for n in full if np.array_equal(full[n], half[n])}
    assert {n for n in full if n.startswith("tokenizer")} <= same
    assert not {n for n in same if n.startswith("predictor") and n.endswith("weight")}
    assert all(np.isfinite(half[n]).all() for n in half)


def test_a_forecast_beyond_the_positions_slides(folder: Path, tmp_path: Path) -> None:
    """A horizon longer than was trained, from a context that nearly fills the positions."""
    made = config(pretrained=str(folder), finetune="none", context_length=40)
    predictor = load(train(PANEL, made, tmp_path / "zero"))
    context = windows_of(PANEL).context(40, slice(0, 2))
    wanted = predictor.paths(context, horizon=HORIZON, seed=0)
    short = KronosPredictor(predictor.nets, made, Resources())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("foresweep.models.kronos.model.positions_of", lambda _: 42)
        slid = short.paths(context, horizon=HORIZON, seed=0)
    np.testing.assert_allclose(slid[:, :, :2], wanted[:, :, :2], rtol=1e-2)
    assert slid.shape == wanted.shape
    assert np.isfinite(slid).all()
    assert not np.array_equal(slid, wanted)
