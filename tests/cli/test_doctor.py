"""`doctor`: it names the places that the other commands would use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shells import Shell


def test_the_doctor_names_the_data_that_the_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORESWEEP_DATA", raising=False)
    shell = Shell(capsys)
    assert json.loads(shell("doctor", "--json"))["data"] == "demo"
    monkeypatch.setenv("FORESWEEP_DATA", "prices/daily")
    assert json.loads(shell("doctor", "--json"))["data"] == "prices/daily"
