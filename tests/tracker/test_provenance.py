from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep.tracker.provenance import (
    HIDDEN,
    MAX_DIFF_CHARS,
    clipped,
    redact,
    redact_command,
    this_environment,
)

SECRET = "Zq8x71LmNoPq2345678901"
PLANTED = [
    f"postgresql://me:{SECRET}@host/db",
    f"postgresql://me:{SECRET}@{SECRET}@host/db",
    f"mysql+driver://:{SECRET}@host",
    f"https://host/path?api_key={SECRET}&x=1",
    f"WANDB_API_KEY={SECRET}",
    f"export AWS_SECRET_ACCESS_KEY='{SECRET}'",
    f'"password": "{SECRET}"',
    f"+DB_PASSWORD: {SECRET}",
    f"client_secret = {SECRET}",
    f"--token {SECRET}",
    f"--hf-token={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"hf_{SECRET}",
    f"ghp_{SECRET}",
    f"sk-{SECRET}",
    f"AKIA{SECRET[:16].upper()}",
    f"eyJ{SECRET}.{SECRET}.{SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
]
PLAIN = [
    "lr = 0.001, loss_token_weight = 3, tokenizer = 'base', num_tokens: 5",
    "see https://example.org:8080/a and mail me@example.org",
    "the secret of the token is its key",
    "src/foresweep/models/kronos.py:12: monkey = keyboard",
]


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_secret_is_hidden(text: str) -> None:
    shown = redact(f"before {text} after")
    assert SECRET not in shown
    assert SECRET[:16].upper() not in shown
    assert HIDDEN in shown
    assert shown.startswith("before ")


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_hiding_twice_hides_no_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_the_word_after_a_telling_flag_is_hidden_whatever_it_looks_like() -> None:
    command = redact_command(["sweep", "--password", "two words", "--db", "x.db", "--token=abc"])
    assert command == f"sweep --password {HIDDEN} --db x.db --token={HIDDEN}"


def test_the_diff_of_an_env_file_is_hidden_whole() -> None:
    diff = f"diff --git a/prod.env b/prod.env\n+PLAIN={SECRET}\ndiff --git a/x.py b/x.py\n+lr = 1\n"
    shown = redact(diff)
    assert SECRET not in shown
    assert "+lr = 1" in shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("abcde", 3) == "abc\n[cut: 2 more characters]\n"


def git(folder: Path, command: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(
        ["git", *who, *shlex.split(command)], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("lr = 1\n")
    git(tmp_path, "add .")
    git(tmp_path, "commit -m first")
    return tmp_path


def test_a_clean_repository_has_a_commit_and_no_diff(repository: Path) -> None:
    found = this_environment(repository)
    assert len(found.git_commit or "") >= 7
    assert (found.git_dirty, found.git_diff) == (False, None)


def test_a_changed_repository_keeps_its_diff_capped_and_without_secrets(repository: Path) -> None:
    changed = f"lr = 2\nAPI_KEY = '{SECRET}'\n" + "x = 1\n" * MAX_DIFF_CHARS
    (repository / "code.py").write_text(changed)
    found = this_environment(repository)
    assert found.git_dirty is True
    assert found.git_diff is not None
    assert "+lr = 2" in found.git_diff
    assert SECRET not in found.git_diff
    assert len(found.git_diff) < MAX_DIFF_CHARS + 100


def test_outside_a_repository_nothing_is_claimed(tmp_path: Path) -> None:
    found = this_environment(tmp_path)
    assert (found.git_commit, found.git_dirty, found.git_diff) == (None, None, None)


def test_without_git_nothing_is_claimed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert this_environment(repository).git_commit is None


def test_the_command_and_the_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["foresweep", "sweep", "--db", f"x://me:{SECRET}@h"])
    found = this_environment()
    assert found.command == f"foresweep sweep --db x://me:{HIDDEN}@h"
    assert found.packages["sqlalchemy"]
    assert found.environment_id == this_environment().environment_id
