"""Planted secrets: whatever way one comes in, it is nowhere in the database's file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foresweep.errors import DatabaseUnusable
from foresweep.tracker.provenance import HIDDEN, redact, redact_variables, storable
from foresweep.tracker.tracker import Tracker

SECRET = "Zq8x71LmNoPq2345678901"
BY_FORM = {  # no telling name beside them: only their form gives them away
    "stripe": "sk" + "_live_ABCDEFGHIJKLMNOPQRSTUVWX",
    "telegram": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9",
    "sendgrid": "SG." + "abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    "base64": "'c3VwZXIgbG9uZyBzdHJpbmcgc2hvdWxkIGNhdXNlIGVub3VnaCBlbnRyb3B5'",
}
HONEST = [
    "sha 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
    "index 1234567..abcdef01 100644",
    "open('/home/me/project/tests/test_many_processes_of_one_kind.py')",
    "run toto_20261122_174501_8f3a2c1b of 'NeoQuasar/Kronos-Tokenizer-base'",
    "lr=0.0001 weight_decay=0.01 d_model=256",
]


@pytest.mark.parametrize("kind", BY_FORM)
def test_a_secret_without_a_name_is_known_by_its_form(kind: str) -> None:
    shown = redact(f"before {BY_FORM[kind]} after")
    assert BY_FORM[kind].strip("'") not in shown
    assert HIDDEN in shown
    assert shown.startswith("before ")


@pytest.mark.parametrize("text", HONEST)
def test_hashes_paths_and_numbers_are_no_secrets(text: str) -> None:
    assert redact(text) == text


def test_variables_with_telling_names_are_hidden_whole() -> None:
    found = redact_variables(
        {"WANDB_API_KEY": "short", "FORESWEEP_DB": f"postgresql://me:{SECRET}@h/d", "OMP_N": "1"}
    )
    assert found == {
        "WANDB_API_KEY": HIDDEN,
        "FORESWEEP_DB": f"postgresql://me:{HIDDEN}@h/d",
        "OMP_N": "1",
    }


def test_what_no_database_can_hold_is_spelt_out() -> None:
    assert storable("a\0b\ud800c") == "a\\x00b?c"


def test_no_planted_secret_is_in_the_file(tmp_path: Path) -> None:
    """One process with a secret in its command line, environment, diff, error, notes."""
    folder, place = tmp_path / "project", tmp_path / "sweeps.db"
    folder.mkdir()
    script = folder / "train.py"
    script.write_text(
        "import sys\n"
        "from foresweep.tracker.tracker import Tracker\n"
        "with Tracker(sys.argv[1]) as tracker:\n"
        f"    run = tracker.start_run(model='toto', hyperparams={{}}, notes='token={SECRET}')\n"
        f"    tracker.add_note(run.run_id, 'see https://me:{SECRET}@host/')\n"
        f"    tracker.finish_run(run.run_id, 'failed', error='password: {SECRET}', notes='ok')\n"
        f"    tracker.log_run('toto', {{}}, {{}}, notes='Bearer {SECRET}')\n"
    )
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -qm m"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    with script.open("a") as file:
        file.write(f"# api_key = '{SECRET}'\n")
    subprocess.run(
        [sys.executable, script, place, "--password", SECRET, f"--db=pg://u:{SECRET}@h/d"],
        cwd=folder,
        env={**os.environ, "HF_TOKEN": SECRET, "FORESWEEP_DB": f"pg://u:{SECRET}@h"},
        check=True,
    )
    content = b"".join(p.read_bytes() for p in tmp_path.glob("sweeps.db*"))
    assert SECRET.encode() not in content
    with Tracker(place) as tracker:
        seen = tracker.get_environment(tracker.get_runs()[0].run_id)
    assert HIDDEN in str(seen["command"])
    assert "api_key" in str(seen["git_diff"])
    assert seen["variables"]["HF_TOKEN"] == HIDDEN  # type: ignore[index]
    assert seen["cpu_model"]
    assert seen["memory_mb"]


@pytest.mark.parametrize("password", ["pa@PART", "pa/PART", "pa:PART", "pa#PART", "p@a/P@RT"])
def test_no_part_of_a_password_is_left_whatever_marks_it_has(password: str) -> None:
    shown = redact(f"--db postgresql://me:{password}@host/db --seed 1")
    assert shown == f"--db postgresql://me:{HIDDEN}@host/db --seed 1"


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "postgres"])
def test_an_address_with_two_ats_is_refused_without_its_password(kind: str) -> None:
    with pytest.raises(DatabaseUnusable, match="%40") as error:
        Tracker(f"{kind}://me:pa@PART@host/db")
    assert "PART" not in str(error.value)
