"""`verdict` on the command line: exit codes, words, and a test that nothing else opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.main import get_command

from foresweep.cli.main import app
from foresweep.selection.verdict.runs import verdict as python_verdict
from foresweep.tracker.tracker import Tracker
from judged_sweep import plant, spoil_test
from shells import Shell

POOR = {f"t{k}": -0.01 - 0.002 * k for k in range(6)}


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


def made(skills: dict[str, float], **said: object) -> dict[str, str]:
    """A planted sweep where the commands look; run ids by name."""
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        planted = plant(tracker, Path("hyperparams/runs").resolve(), skills, **said)
        return {name: run.run_id for name, run in planted.runs.items()}


def test_a_promoted_run_ends_in_zero_and_says_so_first(shell: Shell) -> None:
    ids = made(POOR | {"good": 0.1})
    out = shell("verdict", code=0)
    assert out.startswith("PROMOTE: every gate is passed.")
    assert ids["good"] in out
    assert "raw skill on test" in out
    assert "This was look 1 at the test of these cells" in out
    assert "Survivorship:" in out
    assert (
        "Sharpe ratio of the trading rule on val (after cost, over always-long; not asked)" in out
    )
    assert "The best of 7 trials by luck alone shows" in out


def test_naive_wins_ends_in_three_and_test_is_not_looked_at(shell: Shell) -> None:
    made(POOR)
    out = shell("verdict", code=3)
    assert out.startswith("BASELINE WINS: random-walk: none of 6 trials is better than random-walk")
    assert "not looked" in out
    assert "not looked" in out.split("raw skill on test")[1].splitlines()[0]


def test_hold_ends_in_four(shell: Shell) -> None:
    ids = made(POOR | {"good": 0.1})
    assert shell("verdict", ids["t0"], code=4).startswith("HOLD: not this one: toto (good)")


def test_of_several_verdicts_the_worst_one_decides_the_exit_code(shell: Shell) -> None:
    first = made(POOR | {"good": 0.1}, tag="a", horizon=1)
    second = made(POOR, tag="b")
    out = shell("verdict", first["good"], second["t0"], "--json", code=3)
    assert [v["outcome"] for v in json.loads(out)] == ["promote", "naive wins"]


def test_json_is_one_object_for_one_run(shell: Shell) -> None:
    made(POOR)
    assert json.loads(shell("verdict", "--json", code=3))["outcome"] == "naive wins"


def test_options_that_would_have_no_effect_are_refused(shell: Shell) -> None:
    made(POOR)
    assert "--benchmark is for --losses FILE" in shell.error(
        "verdict", "--benchmark", "drift", code=2
    )
    assert "two questions" in shell.error(
        "verdict", "--losses", "x.csv", "--sweep", "latest", code=2
    )
    assert "needs --benchmark" in shell.error("verdict", "--losses", "x.csv", code=2)
    assert "write a date" in shell.error(
        "verdict", "--losses", "x.csv", "--benchmark", "b", "--pretrain-cutoff", "May", code=2
    )


def test_an_unknown_run_is_an_error_in_one_line(shell: Shell) -> None:
    made(POOR)
    assert "no run 'nobody'" in shell.error("verdict", "nobody", code=1)


def test_best_marks_what_is_better_and_says_where(shell: Shell) -> None:
    made(POOR | {"good": 0.1})
    made(POOR, tag="other", horizon=1)
    sweep = json.loads(shell("runs", "--json"))[-1]["sweep_id"]
    out = shell("best", "--top-k", "3", "--sweep", sweep)
    assert "SM" in out
    assert "vs random-walk" in out
    assert "Better than random-walk with all 7 configs counted (StepM, 5 %): 1." in out
    assert "horizon 1, not 5" in out
    first = json.loads(shell("best", "--json", "--top-k", "2", "--sweep", sweep))[0]
    assert (first["superior"], first["in_mcs"]) == (True, True)
    items = json.loads(shell("best", "--by", "item", "--json", "--sweep", sweep))
    assert len(items) == 31
    assert "on 5 of 5; one line alone is luck" in shell("best", "--by", "lead", "--sweep", sweep)
    assert "one run" in shell.error("best", "--by", "item", "--export-path", code=2)


READING = {
    "sweeps": ["--json"],
    "status": ["--json"],
    "runs": ["--json"],
    "best": ["--json"],
    "show": ["RUN", "--json"],
    "compare": ["RUN", "OTHER", "--json"],
    "impact": ["lr", "--model", "toto", "--json"],
    "report": [],
    "export json": [],
}


@pytest.mark.parametrize("command", READING)
def test_no_reading_command_opens_or_shows_test(shell: Shell, command: str) -> None:
    same = {name: {"lr": 0.1 * k} for k, name in enumerate(POOR)}
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        planted = plant(tracker, Path("hyperparams/runs").resolve(), POOR, hyperparams=same)
        with tracker.store.read() as connection:
            from foresweep.tracker.queries.runs import sealed_scores

            secrets = [sealed_scores(connection, r.run_id) for r in planted.runs.values()]
    spoil_test(planted)
    ids = {"RUN": planted.id("t0"), "OTHER": planted.id("t1")}
    out = shell(*command.split(), *(ids.get(word, word) for word in READING[command]))
    for scores in secrets:
        value = scores["test_pct_mae"]
        assert not any(text in out for text in (repr(value), f"{value:.4f}", f"{value:.6g}"))
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        assert tracker.judgings.test_looks() == []


def test_the_report_tells_the_latest_verdict_of_its_windows_and_no_number_of_test(
    shell: Shell,
) -> None:
    ids = made(POOR | {"good": 0.1})
    assert "No verdict is on record" in shell("report")
    shell("verdict", ids["t0"], code=4)
    said = json.loads(shell("verdict", ids["good"], "--json", code=0))
    report = shell("report")
    assert f"**PROMOTE**: every gate is passed. On toto (good) (run `{ids['good']}`)" in report
    assert "HOLD" not in report
    assert "| against | raw skill on val | scaled skill | p (StepM) |" in report
    for check in said["checks"]:
        if check["gate"] == 4:
            assert f"{check['value']:.4g}" not in report
            assert f"| 4 | {check['name']} | sealed |" in report
    assert f"{said['against'][0]['test_raw_skill']:+.2%}".replace("%", " %") not in report
    made(POOR, tag="later", horizon=1)
    assert "No verdict is on record" in shell("report", "--sweep", "latest")


def test_a_run_s_test_is_revealed_on_request_and_the_look_counts(shell: Shell) -> None:
    ids = made(POOR | {"good": 0.1})
    said = json.loads(shell("show", ids["t0"], "--reveal-test", "--json"))
    assert said["test_scores"]["test_pct_mae"] > 0
    (look,) = said["looks"]
    assert (look["run_id"], look["why"]) == (ids["t0"], "show --reveal-test")
    out = shell("show", ids["t0"], "--reveal-test")
    assert f"{said['test_scores']['test_pct_mae']:.4f}" in out
    assert "This is look 2 at this run's test" in out
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        assert len(tracker.judgings.test_looks(ids["t0"])) == 2
    judged = json.loads(shell("verdict", ids["good"], "--json", code=0))
    assert judged["look_number"] == 2  # one run was looked at before, however often
    assert judged["test_level"] == pytest.approx(0.05 / 4)
    assert "give one" in shell.error("show", ids["t0"], "--reveal-test", "--by", "item", code=2)


def test_every_command_that_reads_runs_is_held_to_that() -> None:
    """A new command has to join `READING` or be named here."""
    others = {
        "sweep", "train", "logs", "note", "tag", "rm", "predict", "doctor", "verdict", "power",
        "import", "export", "db", "data", "spaces", "ensemble", "stop", "reproduce", "dashboard",
        "promote", "rollback", "champion", "serve", "ledger",
        "declare", "surrogate", "monitor", "update", "walkforward",
    }  # fmt: skip
    assert set(get_command(app).commands) <= others | set(READING)


def test_the_best_of_each_horizon_of_a_family_are_judged_together(shell: Shell) -> None:
    made(POOR, horizon=1)
    made(POOR, tag="later", horizon=5)
    assert isinstance(json.loads(shell("verdict", "--json", code=3)), dict)
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        for sweep in tracker.list_sweeps():
            tracker.heads.reopen(sweep.sweep_id, {**sweep.plan, "asked": {"family": "f"}})
            tracker.finish_sweep(sweep.sweep_id, "complete")
    both = json.loads(shell("verdict", "--json", code=3))
    assert [v["horizon"] for v in both] == [1, 5]
    assert [v["num_horizons"] for v in both] == [2, 2]
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        found = {s.horizon: s.sweep_id for s in tracker.list_sweeps()}
    for horizon, sweep_id in found.items():  # in Python: of the sweep that was asked for
        asked = python_verdict(sweep_id=sweep_id, db="hyperparams/sweeps.db")
        assert (asked.horizon, asked.num_horizons) == (horizon, 2)


def test_removing_the_losers_makes_the_winner_no_less_lucky(shell: Shell) -> None:
    ids = made(POOR)
    before = json.loads(shell("verdict", "--json", code=3))
    for name in POOR:
        if ids[name] != before["candidate"]:
            assert "but for its losses" in shell("rm", ids[name], "--yes")
    after = json.loads(shell("verdict", "--json", code=3))
    assert after["num_tested"] == before["num_tested"]
    assert after["against"][0]["pvalue"] == before["against"][0]["pvalue"]
    loser = Path("hyperparams/runs") / ids["t5"]
    assert [f.name for f in loser.rglob("*") if f.is_file()] == ["losses.npz"] * 3
