"""The command line on real runs of the baselines: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foresweep.cli.main import main
from foresweep.metrics import METRICS
from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("commands")]  # its sweeps are made once


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which drift was trained by hand, beside all baselines."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main(["train", "--model", "drift", "--data", "demo"])
        assert not ended.value.code
    return folder


@pytest.fixture
def shell(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(workplace)
    return Shell(capsys)


def test_every_baseline_is_on_record_with_its_scores(shell: Shell) -> None:
    found = json.loads(shell("runs", "--json"))
    assert {r["model_name"] for r in found} == {
        "last-value", "drift", "seasonal-naive", "random-walk", "har"
    }  # fmt: skip
    assert all(r["state"] == "complete" and r["metrics"]["val_pct_mae"] > 0 for r in found)


def test_no_command_shows_a_test_score(shell: Shell) -> None:
    run = json.loads(shell("runs", "--json"))[0]["run_id"]
    for command in (
        ["runs", "--json"], ["runs"], ["show", run], ["show", run, "--json"], ["report"],
        ["best", "--include-baselines", "--json"], ["best", "--include-baselines", "--top-k", "9"],
    ):  # fmt: skip
        said = shell(*command)
        assert not any(f"test_{metric}" in said for metric in METRICS)


def test_best_ranks_trained_runs_alone_unless_asked(shell: Shell) -> None:
    assert "no run with a val_pct_mae" in shell.error("best", code=1)
    rows = json.loads(shell("best", "--include-baselines", "--top-k", "2", "--json"))
    assert [r["model"] for r in rows] == ["last-value", "har"]


def test_a_baseline_that_is_named_ranks(shell: Shell) -> None:
    assert json.loads(shell("best", "--model", "last-value", "--json"))[0]["place"] == 1
    assert "no run of all with" in shell.error("best", "--model", "all", code=1)


def test_all_spaces_are_one_json(shell: Shell) -> None:
    found = json.loads(shell("spaces", "show", "all", "--json"))
    assert set(found) == {"toto", "kronos", "chronos2"}
    assert json.loads(shell("spaces", "show", "toto", "--json")) == found["toto"]


def test_minimize_is_the_default_and_maximize_turns_it_round(shell: Shell) -> None:
    asked = ("best", "--include-baselines", "--json")
    lowest, said, highest = (
        json.loads(shell(*asked, *extra))[0]["model"]
        for extra in ([], ["--minimize"], ["--maximize"])
    )
    assert lowest == said == "last-value"
    assert highest == "seasonal-naive"


def test_the_exported_path_is_one_line_and_its_card_says_that_naive_is_not_beaten(
    shell: Shell, workplace: Path
) -> None:
    shell("best", "--include-baselines", "--model", "drift", "--export-path")
    path = Path((workplace / ".best_model_path").read_text())
    card = json.loads((workplace / ".best_model.json").read_text())
    assert path.is_dir()
    assert (card["model"], card["beats_naive"]) == ("drift", False)
    assert not any(k.startswith("test_") for k in card["metrics"])
    forecasts = json.loads(shell("predict", "--json"))
    assert {f["item_id"] for f in forecasts} == {"AAPL", "GOOG", "IBM", "MSFT", "NASDAQ", "SP500"}
    assert {f["lead"] for f in forecasts} == {1, 2, 3, 4, 5}
    assert all(f["q10"] <= f["q50"] <= f["q90"] for f in forecasts)
    assert all(f["timestamp"] > f["origin"] for f in forecasts)


def test_interactive_selection_asks_and_exports_without_test_scores(
    shell: Shell, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["0", "6", "99", "3"])
    monkeypatch.setattr("typer.prompt", lambda *a, **k: next(answers))
    out = shell("best", "--interactive", "--include-baselines", "--export-path")
    assert "Give a number from 1 to 6." in out
    assert "Give a number from 1 to 6, or q" in out
    assert "toto" not in out  # nothing of it is ranked, so it is not offered
    assert not any(f"test_{metric}" in out for metric in METRICS)
    assert json.loads((workplace / ".best_model.json").read_text())["model"] == "random-walk"


def test_leaving_the_interactive_list_exports_nothing(
    shell: Shell, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / ".best_model_path").unlink(missing_ok=True)
    answers = iter(["6", "q"])
    monkeypatch.setattr("typer.prompt", lambda *a, **k: next(answers))
    shell("best", "--interactive", "--include-baselines", "--export-path", code=1)
    assert not (workplace / ".best_model_path").exists()


def test_the_report_is_written_and_says_how_time_was_cut(shell: Shell, workplace: Path) -> None:
    shell("report", "-o", "report.md")
    text = (workplace / "report.md").read_text()
    assert "| tune | 2010-03-15 |" in text
    assert "confirm (sealed)" in text


def test_an_equal_run_is_not_trained_twice(shell: Shell) -> None:
    before = len(json.loads(shell("runs", "--json")))
    assert "trained before as drift_" in shell("train", "--model", "drift")
    assert len(json.loads(shell("runs", "--json"))) == before


def test_logs_and_show_find_a_run_by_the_beginning_of_its_id(shell: Shell) -> None:
    run = json.loads(shell("runs", "--model", "drift", "--json"))[0]["run_id"]
    assert "val_pct_mae" in shell("show", run[:-3])
    shell("logs", run[:-3])


def test_data_show_prints_the_parts(shell: Shell) -> None:
    out = shell("data", "show", "demo", "--horizon", "5")
    assert "2012-02-13" in out
    assert json.loads(shell("data", "show", "demo", "--json"))["num_items"] == 6


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_picture_is_whole_on_a_narrow_terminal_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = shell("data", "show", "demo", "--horizon", "5")
    (line,) = (x for x in out.splitlines() if "IBM" in x and "▁" in x)
    assert sum(c in "▁▂▃▄▅▆▇█" for c in line) == 40
    assert "XNYS" in out


def test_a_sweep_can_be_reported_through_the_seeds_tracker(shell: Shell, workplace: Path) -> None:
    from foresweep.compat import HyperparamTracker

    with HyperparamTracker(workplace / "hyperparams" / "sweeps.db") as tracker:
        assert "# Sweep report" in tracker.generate_report(workplace / "seed.md")
    assert (workplace / "seed.md").exists()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["sweep", "--model", "totto"], 2, "did you mean 'toto'"),
        (["sweep", "--model", "toto", "--objective", "val_pct_mae"], 2, "bare name"),
        (["sweep", "--model", "toto", "--objective", "pct_ma"], 2, "did you mean 'pct_mae'"),
        (["train", "--model", "drift", "--set", "lr"], 2, "key=value"),
        (["train", "--model", "drift", "--set", "driift=3"], 2, "unknown hyperparameter"),
        (["sweep", "--model", "toto", "--data", "demo", "--horizon", "900"], 1, "too long"),
        (["sweep", "--model", "toto", "--data", "nowhere"], 1, "nowhere"),
        (["best", "--metric", "test_pct_mae"], 2, "never"),
        (["best", "--metric", "val_pct_mea"], 2, "val_pct_mae"),
        (["best", "--maximize", "--minimize"], 2, "contradict"),
        (["show", "no-such-run"], 1, "no-such-run"),
        (["report", "-o", "report.docx"], 2, ".md"),
        (["spaces", "copy", "drift"], 2, "no search space"),
        (["sweep", "-m", "toto", "--size", "tiny", "--pretrained", "published"], 2, "one of the"),
    ],
)
def test_bad_calls_end_in_one_line_and_the_right_code(
    shell: Shell, args: list[str], code: int, says: str
) -> None:
    assert says in shell.error(*args, code=code)


def test_a_runs_folder_that_cannot_be_written_is_named_before_anything_runs(
    shell: Shell, workplace: Path
) -> None:
    (workplace / "a-file").touch()
    line = shell.error("train", "--model", "drift", "--runs", "a-file/runs", code=1)
    assert "a-file/runs" in line
    assert "--runs" in line
