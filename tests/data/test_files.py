"""Files are whole or not there, and one clear error says what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.files import (
    read_json,
    read_npz,
    write_bytes_atomic,
    write_json_atomic,
    write_npz,
)
from foresweep.errors import DataError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"price": 1.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, {"price": float("nan")})
    with pytest.raises(TypeError):
        write_bytes_atomic(path, "text")  # type: ignore[arg-type]
    assert read_json(path) == {"price": 1.5}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_is_readable_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json_atomic(path, {"name": "Zürich", "list": [1, None]})
    assert json.loads(path.read_text("utf-8")) == {"name": "Zürich", "list": [1, None]}
    assert path.read_text("utf-8").endswith("}\n")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_json(tmp_path / "absent.json")


def test_a_rename_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"cannot write .*a\.npz: No space left"):
        write_npz(tmp_path / "a.npz", {"a": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_arrays_come_back_by_name_and_broken_files_are_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    write_npz(path, {"loss/a": np.arange(3.0), "name": np.array("x")})
    found = read_npz(path)
    assert found["loss/a"].tolist() == [0.0, 1.0, 2.0]
    assert str(found["name"]) == "x"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cannot read .*a\.npz"):
        read_npz(path)
    with pytest.raises(DataError, match=r"cannot read .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")
