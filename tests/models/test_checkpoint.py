"""Checkpoints on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.errors import CheckpointError
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import (
    read_checkpoint,
    read_weights,
    update_card,
    write_checkpoint,
)

WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.array([1, -1])}


def write(path: Path, **more: Any) -> Checkpoint:
    options = {"weights": WEIGHTS, "card": {"horizon": 5, "score": np.float64(1.5)}, **more}
    return write_checkpoint(path, model="toto", config={"lr": 0.1, "size": None}, **options)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "a")
    found = read_checkpoint(tmp_path / "a")
    assert found == written
    assert (found.model, found.config) == ("toto", {"lr": 0.1, "size": None})
    assert found.card["horizon"] == 5
    assert "numpy" in found.card["versions"]
    for name, value in read_weights(found).items():
        np.testing.assert_array_equal(value, WEIGHTS[name])
        assert value.dtype == WEIGHTS[name].dtype


def test_a_model_without_weights_has_no_weights_file(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a", weights=None)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["card.json", "config.json"]
    assert read_weights(read_checkpoint(checkpoint.path)) == {}


def test_weights_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a", weights={"t": WEIGHTS["a"].T})
    np.testing.assert_array_equal(read_weights(checkpoint)["t"], WEIGHTS["a"].T)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_altered_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "a").path / name
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=rf"{name} was altered"):
        read_checkpoint(tmp_path / "a")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (write(tmp_path / "a").path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"files": {"model.safetensors": ""}}', "\xff"])
def test_a_card_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (write(tmp_path / "a").path / "card.json").write_text(text, "latin-1")
    with pytest.raises(CheckpointError, match=r"card\.json"):
        read_checkpoint(tmp_path / "a")


def test_a_card_that_tells_something_else_is_refused(tmp_path: Path) -> None:
    """A card says how far ahead was trained and which bars were seen: no other file tells that."""
    file = write(tmp_path / "a").path / "card.json"
    file.write_text(file.read_text().replace('"horizon": 5', '"horizon": 6'))
    with pytest.raises(CheckpointError, match=r"card\.json was altered"):
        read_checkpoint(tmp_path / "a")


def test_a_card_of_before_cards_were_hashed_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a").path / "card.json"
    card = json.loads(file.read_text())
    del card["sha256"]
    file.write_text(json.dumps(card))
    found = read_checkpoint(tmp_path / "a")
    assert found.card == card
    update_card(found, {"note": "now it is hashed"})
    assert "sha256" in read_checkpoint(tmp_path / "a").card


def test_a_card_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a")
    (tmp_path / "secret").write_text("x")
    card = {"files": {"config.json": "", "../secret": ""}}
    (checkpoint.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError):
        read_checkpoint(checkpoint.path)


def test_nothing_is_left_behind_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*No space left"):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    before = write(tmp_path / "a")
    with pytest.raises(CheckpointError, match="cannot write checkpoint"):
        write(tmp_path / "a", card={"horizon": 6})
    assert read_checkpoint(tmp_path / "a") == before


def test_a_card_grows_and_keeps_its_hashes(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "a")
    grown = update_card(checkpoint, {"scores": {"val": float("nan")}, "files": {}})
    found = read_checkpoint(tmp_path / "a")
    assert found == grown
    assert found.card["scores"] == {"val": None}  # JSON has no word for NaN
    assert found.card["files"] == checkpoint.card["files"]
    assert len(list((tmp_path / "a").iterdir())) == 3
