"""`foresweep power`: what it says and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from panels import make_frame
from shells import Shell


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    make_frame(4, 1400).write_csv(tmp_path / "prices.csv")
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


def test_it_answers_in_words_and_numbers(shell: Shell) -> None:
    command = ["power", "--data", "prices.csv", "--trials", "30", "--skill", "0.03"]
    plan = json.loads(shell(*command, "--json"))
    now = plan["outlooks"][0]
    said = shell(*command)
    assert f"can prove a skill of {100 * now['smallest_skill']:.2g} %" in said
    assert f"a chance of {now['chance']:.0%}" in said
    assert plan["trials"] == 30
    assert len(plan["outlooks"]) == 6


def test_it_says_when_nothing_can_be_proved(shell: Shell) -> None:
    said = shell("power", "--data", "prices.csv", "--horizon", "20")
    assert "Nothing can be proved here: a verdict needs 20 effective origins" in said


def test_a_skill_in_percent_is_refused(shell: Shell) -> None:
    said = shell.error("power", "--data", "prices.csv", "--skill", "2", code=2)
    assert "--skill 2 must be a share between 0 and 1" in said
