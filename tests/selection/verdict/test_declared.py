"""What was declared before the first training stands beside what was done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from foresweep.errors import NotFound, UsageError
from foresweep.selection.verdict.declared import in_words
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.declaring import Declaration
from foresweep.tracker.storage.verifying import verify
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant
from shells import Shell

SKILLS = {"t0": -0.01, "t1": -0.02}
NUM = len(SKILLS) + 3  # what is planted takes numbers for its baselines, too


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Tracker(tmp_path / "sweeps.db") as opened:
        yield opened


def declare(tracker: Tracker, **changed: Any) -> Declaration:
    asked: dict[str, Any] = {"models": ["toto"], "objective": "pct_mae", "horizons": [5]}
    return tracker.declarations.add("is toto any good?", **asked | {"max_trials": NUM} | changed)


def made_for(tracker: Tracker, folder: Path, said: Declaration, tag: str = "one") -> Planted:
    made = plant(tracker, folder / "runs", SKILLS, tag=tag)
    asked = {"asked": {"declared": said.declaration_id}}
    tracker.heads.reopen(made.sweep.sweep_id, {**made.sweep.plan, **asked})
    return made


def test_a_search_that_kept_to_its_declaration_says_so(tracker: Tracker, tmp_path: Path) -> None:
    made_for(tracker, tmp_path, declare(tracker))
    (verdict,) = verdict_on_runs(tracker)
    assert verdict.declared is not None
    assert verdict.declared["departures"] == []
    words = in_words(verdict.declared)
    assert words.startswith("Declared ")
    assert '"is toto any good?" (toto; pct_mae, 5 ahead; 5 trials)' in words
    assert words.endswith("Kept to: 5 trials were made.")


def test_every_departure_is_named(tracker: Tracker, tmp_path: Path) -> None:
    plant(tracker, tmp_path / "runs", SKILLS, tag="zero")
    said = declare(
        tracker,
        models=["kronos"],
        objective="pinball",
        horizons=[1],
        max_trials=2,
        smallest_skill=1e-4,
    )
    made_for(tracker, tmp_path, said)
    (verdict,) = verdict_on_runs(tracker)
    assert verdict.declared is not None
    older, more, model, objective, horizon, skill = verdict.declared["departures"]
    assert older == f"{NUM} trials on these items and days are older than it"
    assert more == f"{NUM} trials were made, 2 were declared"
    assert model == "toto was tried, kronos was declared"
    assert objective == "the objective was pct_mae, pinball was declared"
    assert horizon == "the horizon was 5, 1 was declared"
    assert skill.startswith("a skill of 0.01 % was of interest, and none below ")
    assert verdict.as_json()["declared"]["max_trials"] == 2


def test_what_was_not_declared_is_not_spoken_of(tracker: Tracker, tmp_path: Path) -> None:
    plant(tracker, tmp_path / "runs", SKILLS)
    assert verdict_on_runs(tracker)[0].declared is None


def test_a_declaration_is_chained_and_found_again(tracker: Tracker) -> None:
    said = declare(tracker, smallest_skill=0.02)
    assert tracker.declarations.get("latest") == said
    assert tracker.declarations.get(said.declaration_id[:-1]) == said
    with pytest.raises(NotFound, match="make one with: foresweep declare"):
        tracker.declarations.get("none-such")
    with pytest.raises(UsageError, match="in words"):
        tracker.declarations.add(" ", models=[], objective="x", horizons=[], max_trials=1)
    with tracker.store.write() as connection:
        assert verify(connection).is_sound
        connection.execute(text("UPDATE declarations SET max_trials = 500"))
        (problem,) = verify(connection).problems
    assert (problem.what, problem.kind) == ("changed", "declaration")


def test_the_command_declares_and_the_verdict_and_its_json_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    shell = Shell(capsys)
    asked = ("declare", "any good?", "--model", "toto", "--max-runs", "9", "--horizon", "1,5")
    named = json.loads(shell(*asked, "--smallest-skill", "0.5", "--json"))["declaration_id"]
    assert "between 0 and 1" in shell.error(*asked, "--smallest-skill", "2", code=2)
    assert "objective" in shell.error(*asked, "--objective", "nonsense", code=2)
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        said = tracker.declarations.get(named)
        assert (said.models, said.horizons, said.max_trials) == (("toto",), (1, 5), 9)
        made_for(tracker, Path("hyperparams").resolve(), said)
    assert "Declared " in shell("verdict", code=3)
    told = json.loads(shell("verdict", "--json", code=3))
    assert told["declared"]["question"] == "any good?"
    assert shell("db", "verify").endswith("all as it was written.\n")
    noted = told["record"]["last_hash"]
    assert json.loads(shell("db", "verify", "--holds", noted, "--json"))["is_sound"]
    assert "written anew" in shell("db", "verify", "--holds", "0" * 64, code=1)
