"""Corrupted and tampered checkpoints: whatever byte is another, it is refused; where the hashes are
made anew to fit, it is refused in one line or forecasts what it says."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import broken
import kronos_tiny
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import CheckpointError
from foresweep.evaluation.predict import Forecaster
from foresweep.models.base import Resources, TrainingJob, make_config
from foresweep.models.baselines.har import Har
from foresweep.models.checkpoint import CARD, CONFIG, WEIGHTS
from panels import make_panel

PANEL = make_panel(3, 400)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Kronos with weights, and a har whose fit is a JSON file beside."""
    folder = tmp_path_factory.mktemp("whole")
    kronos_tiny.train(PANEL, kronos_tiny.config(), folder / "kronos")
    split = make_split(PANEL, Cut(4, max_context=None))
    windows = TrainWindows(PANEL, split, split.part("train"))
    config, notes = (
        make_config(Har.Config, {"context_length": 60}, model="har"),
        kronos_tiny.Notes(),
    )
    Har().train(TrainingJob(
        windows, config, Resources(), seed=0, horizon=4,
        score=notes.score, report=notes.report, out=folder / "har",
    ))  # fmt: skip
    return {name: folder / name for name in ("kronos", "har")}


def forecast(path: Path) -> np.ndarray:
    values: np.ndarray = Forecaster.load(path, Resources()).predict(PANEL, seed=3).forecast.values
    return values


def stretch(path: Path, part: str) -> tuple[Path, int, int]:
    """(file, from, to) of a class of bytes of a Kronos' checkpoint."""
    weights = (path / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(weights[:8], "little")
    card = (path / CARD).read_text()
    match part:
        case "length":
            return path / WEIGHTS, 0, 8
        case "header":
            return path / WEIGHTS, 8, end
        case "weights":
            return path / WEIGHTS, end, len(weights)
        case "config":
            return path / CONFIG, 0, len((path / CONFIG).read_bytes())
        case "hash":
            at = card.index('"files"')
            return path / CARD, at, card.index("}", at)
    return path / CARD, 0, len(card)


PARTS = ("length", "header", "weights", "config", "hash", "card")
"""Classes of bytes."""


def corrupted(whole: Path, folder: Path, chance: random.Random) -> tuple[str, str]:
    """One byte of a class is another: refused, or (white space of a card) nothing else is told."""
    path, part = folder / "damaged", chance.choice(PARTS)
    shutil.copytree(whole, path)
    file, start, end = stretch(path, part)
    content = bytearray(file.read_bytes())
    at = chance.randrange(start, end)
    content[at] ^= chance.randrange(1, 256)
    if chance.random() < 0.2:
        _, content = broken.damaged(bytes(content), chance)  # type: ignore[assignment]
    file.write_bytes(bytes(content))
    what = f"{part}: byte {at} of {file.name}"
    before = broken.contents(path)
    try:
        found = Forecaster.load(path, Resources())
    except BaseException as error:
        outcome = broken.refusal(error)
        if outcome.startswith("refused") and not isinstance(error, CheckpointError):
            outcome = f"wrong: {type(error).__name__}: {error}"
    else:
        same = dict(found.card) == json.loads((whole / CARD).read_bytes())
        outcome = "read: nothing else is told" if same else "wrong: taken for whole"
    if broken.contents(path) != before:
        outcome = "wrong: loading has changed a file"
    shutil.rmtree(path)
    return outcome, what


def rehashed(path: Path, card: dict[str, Any]) -> None:
    """Make every hash fit what is there, as somebody who knows how would."""
    for name in card["files"] if isinstance(card.get("files"), dict) else ():
        card["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    card.pop("sha256", None)
    (path / CARD).write_text(json.dumps(card))


STRANGE = (None, 0, -1, 1e308, 2**70, "", "x", [], [[]], {}, True, "NaN", [1, "a"], {"a": {}})


def _anywhere(value: Any, chance: random.Random) -> Any:
    """A JSON value with something else somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = chance.choice(list(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != name}
        return {**value, name: _anywhere(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], _anywhere(value[at], chance), *value[at + 1 :]]
    return chance.choice(STRANGE)


def _card(path: Path, card: dict[str, Any], chance: random.Random) -> Any:
    return _anywhere(card, chance)


def _config(path: Path, card: dict[str, Any], chance: random.Random) -> Any:
    told = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps(_anywhere(told, chance)))
    return card


def _fit(path: Path, card: dict[str, Any], chance: random.Random) -> Any:
    """har's own file; Kronos has none, and gets one that says it is calibrated."""
    file = path / "har.json"
    if not file.is_file():
        file = path / "calibration.json"
        file.write_text(json.dumps(_anywhere({
            "centre": True, "scale": [1.0] * 4, "levels": [0.1, 0.5, 0.9],
            "coverage": [0.1, 0.5, 0.9], "num_windows": 9,
        }, chance)))  # fmt: skip
        card["files"][file.name] = ""
        return card
    file.write_text(json.dumps(_anywhere(json.loads(file.read_text()), chance)))
    return card


def _weights(path: Path, card: dict[str, Any], chance: random.Random) -> Any:
    """Tensors lost, added, of another shape or type, not finite; or the header is another text."""
    from safetensors.numpy import load_file, save

    file = path / WEIGHTS
    if not file.is_file():
        return _fit(path, card, chance)
    if chance.random() < 0.3:
        _, content = broken.damaged(file.read_bytes()[:4000], chance)
        file.write_bytes(content + file.read_bytes()[4000:])
        return card
    weights = load_file(file)
    name = chance.choice(sorted(weights))
    match chance.choice(["lost", "added", "shape", "type", "nan", "huge", "renamed"]):
        case "lost":
            del weights[name]
        case "added":
            weights["other"] = np.zeros(3, dtype=np.float32)
        case "shape":
            weights[name] = np.concatenate([weights[name].ravel(), [0.0]]).astype(np.float32)
        case "type":
            weights[name] = weights[name].astype(chance.choice([np.int8, np.float64, np.bool_]))
        case "nan":
            weights[name] = np.full_like(weights[name], np.nan)
        case "huge":
            weights[name] = np.full_like(weights[name], 3e38)
        case "renamed":
            weights[f"x{name}"] = weights.pop(name)
    file.write_bytes(save({k: np.ascontiguousarray(v) for k, v in weights.items()}))
    return card


HANDS: dict[str, Callable[[Path, dict[str, Any], random.Random], Any]] = {
    "card": _card, "config": _config, "fit": _fit, "weights": _weights,
}  # fmt: skip


def tampered(whole: Path, folder: Path, chance: random.Random) -> tuple[str, str]:
    """The hashes fit: one line, or finite forecasts of the shape that was asked for."""
    path, hand = folder / "tampered", chance.choice(list(HANDS))
    shutil.copytree(whole, path)
    card = HANDS[hand](path, json.loads((path / CARD).read_text()), chance)
    if isinstance(card, dict):
        rehashed(path, card)
    else:
        (path / CARD).write_text(json.dumps(card))
    before = broken.contents(path)
    try:
        values = forecast(path)
    except BaseException as error:
        outcome = broken.refusal(error)
    else:
        sound = len(values) == PANEL.num_items and np.isfinite(values).all()
        outcome = "read: finite" if sound else f"wrong: forecasts of {values.shape} are not finite"
    if broken.contents(path) != before:
        outcome = "wrong: loading has changed a file"
    told = (path / CARD).read_text()
    shutil.rmtree(path)
    return outcome, f"{whole.name}, {hand}: {told:.1500}"


def campaign(folder: Path, whole: dict[str, Path], num: int, seed: int) -> broken.Seen:
    seen = broken.Seen()
    for number, chance in broken.chances(num, seed):
        if number % 2:
            outcome, what = corrupted(whole["kronos"], folder, chance)
        else:
            outcome, what = tampered(whole[chance.choice(["kronos", "har"])], folder, chance)
        seen.add(outcome, f"case {number}: {what}")
    return seen


def test_a_corrupted_or_tampered_checkpoint_is_refused_or_forecasts_what_it_says(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    seen = campaign(tmp_path, whole, 50, seed=0)
    seen.require_none_wrong()
    assert seen.outcomes["refused"] >= 25, seen.outcomes


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_six_hundred_corrupted_and_tampered_checkpoints(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    campaign(tmp_path, whole, 600, seed=1).require_none_wrong()
