"""`reproduce` on the command line: what it prints, and that test stays sealed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import learning_model
from foresweep.cli.runs import _about_test
from foresweep.data.splits import Cut
from foresweep.metrics import METRICS
from foresweep.search.plan import SweepPlan
from foresweep.search.sweep import train
from foresweep.tracker.tracker import Tracker
from planted_model import plugin
from shells import Shell

pytestmark = pytest.mark.slow

PLAN = SweepPlan(models=("guest",), mode="by hand", cut=Cut(stride=20, max_context=64), max_runs=1)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("guest")
    with plugin(folder, module=learning_model.MODULE, space=learning_model.SPACE):
        train(PLAN, {"tilt": 1.0}, db=folder / "s.db", runs=folder / "runs")
        yield folder


@pytest.fixture
def asked(work: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Shell, str, list[str]]:
    with Tracker(work / "s.db") as tracker:
        run = tracker.get_runs("guest")[0].run_id
    return Shell(capsys), run, ["--db", str(work / "s.db"), "--runs", str(work / "runs")]


def test_every_score_is_shown_then_and_now_and_no_test_score_is(
    asked: tuple[Shell, str, list[str]], work: Path
) -> None:
    shell, run, places = asked
    said = shell("reproduce", run, *places)
    assert f"Training {run} again" in said
    assert "val_pinball" in said
    assert "Reproduced bit for bit, all 50 scores of tune and val." in said
    assert "no test scores on record to compare" in said  # nobody has opened them
    assert "are the same to the last bit; they stay sealed" in _about_test(True)
    assert not any(f"test_{metric}" in said for metric in METRICS)
    with Tracker(work / "s.db") as tracker:
        assert tracker.judgings.test_looks() == []


def test_the_numbers_are_in_the_json_and_nothing_else_is_printed(
    asked: tuple[Shell, str, list[str]],
) -> None:
    shell, run, places = asked
    found = json.loads(shell("reproduce", run, *places, "--json"))
    assert (found["run_id"], found["bit_for_bit"], found["test_is_equal"]) == (run, True, None)
    assert found["versions"] == []
    (score,) = (s for s in found["scores"] if s["name"] == "val_pct_mae")
    assert score["then"] == score["now"] > 0
    assert score["difference"] == 0
    again = json.loads(shell("show", found["again"], "--json", *places))
    assert again["source"] == f"reproduces: {run}"
    assert "reproduce that one" in shell.error("reproduce", found["again"], *places, code=2)
