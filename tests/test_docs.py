"""The docs keep up with the code: reference pages, commands in text, examples that run."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from tests.panels import make_frame
from typer.main import get_command

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402
import licences  # noqa: E402

from foresweep import errors  # noqa: E402
from foresweep.cli.main import app  # noqa: E402
from foresweep.metrics import METRICS  # noqa: E402

TEXTS = sorted(
    [*(p for p in ROOT.glob("*.md") if p.name != "CHANGELOG.md"), *ROOT.glob("docs/*.md")]
)
COMMANDS = get_command(app)
SCRIPTS = {"run_sweep.py": "sweep", "select_best_model.py": "best"}
SEED = [
    *("SWEEP_QUICKSTART.md", "TOTO_QUICKSTART.md", "docs/HYPERPARAM_SWEEP_GUIDE.md"),
    *("docs/TOTO_TRAINING_IMPROVEMENTS.md", "hparams_tracker.py", "hyperparams/sweep_configs.py"),
    *("tototraining/run_improved_training.py", *SCRIPTS),
]


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_reference_page_says_what_the_code_says(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == generate.PAGES[name](), "run: python docs/generate.py"


def test_the_licence_of_every_pinned_package_is_known() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    assert len(licences.pins()) > 150
    for name, version in licences.pins():
        (said,) = re.findall(
            rf"^\| {re.escape(name)} \| {re.escape(version)} \| (.+?) \|", page, re.M
        )
        assert said not in ("not stated", "not installed here", "UNKNOWN"), name


def test_the_lowest_versions_that_are_tried_are_the_lowest_that_are_promised() -> None:
    """`make lowest` installs these; a raised minimum wants its line raised, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tried = dict(x.split("==") for x in (ROOT / "constraints-lowest.txt").read_text().split())
    for dependency in project["dependencies"]:
        name, lowest = dependency.split(">=")
        assert (tried[name] + ".0.0").startswith(f"{lowest}."), dependency


def test_every_error_is_drawn_in_the_tree() -> None:
    names = {n for n, v in vars(errors).items() if isinstance(v, type) and n != "ClassVar"}
    tree = errors.__doc__ or ""
    assert names - {"Iterable"} <= set(re.findall(r"\w+", tree))


def test_every_metric_has_unit_formula_and_source() -> None:
    for metric in METRICS.values():
        assert metric.unit
        assert metric.formula
        assert metric.source


def commands_in(text: str) -> list[list[str]]:
    """Every `foresweep ...` of a page, in its shell blocks or within a line, and the scripts'."""
    blocks = re.findall(r"```(?:bash|console|sh)\n(.*?)```", text, flags=re.DOTALL)
    blocks += re.findall(r"`([^`\n]+)`", text)
    lines = [line.removeprefix("$ ").strip() for b in blocks for line in b.splitlines()]
    for script, name in SCRIPTS.items():
        lines = [line.replace(f"python {script}", f"foresweep {name}") for line in lines]
    return [shlex.split(x, comments=True) for x in lines if x.startswith("foresweep ")]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_every_command_in_the_docs_exists_with_its_options(path: Path) -> None:
    for words in commands_in(path.read_text(encoding="utf-8")):
        command = COMMANDS
        rest = words[1:]
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            command = command.commands[rest[0]]
            rest = rest[1:]
        known = {o for p in command.params for o in p.opts}
        used = {w.split("=")[0] for w in rest if w.startswith("-") and not w[1:2].isdigit()}
        assert used <= known | {"--help"}, f"{path.name}: {' '.join(words)}"


@pytest.mark.parametrize("name", SEED)
def test_a_file_of_the_seed_stands_where_the_seed_has_it(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_every_link_into_a_page_meets_a_heading(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for page, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)]+)\)", text):
        there = (path.parent / page).read_text(encoding="utf-8") if page else text
        heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", there, flags=re.DOTALL), re.M)
        slugs = {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in heads}
        assert anchor in slugs, f"{path.name} links to {page}#{anchor}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_every_file_a_page_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    places = (ROOT, ROOT / "src" / "foresweep", ROOT / "docs")
    for name in re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*\.(?:py|toml))`", text):
        there = any((place / name).exists() for place in places)
        assert there or "/" not in name, f"{path.name} names {name}"


def test_the_changelog_knows_this_version() -> None:
    import foresweep

    assert f"## {foresweep.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_project_version_is_said_once() -> None:
    import foresweep

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == foresweep.__version__


def test_the_seeds_example_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)  # where a user stands: beside hparams_tracker.py
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (code,) = (b for b in blocks if "log_run" in b)
    exec(compile(code, "README.md", "exec"), {})
    assert "Best: " in capsys.readouterr().out


@pytest.mark.slow  # it trains two tiny networks for 20 steps
def test_the_fifteen_lines_of_the_notebook_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import foresweep

    monkeypatch.chdir(tmp_path)
    prices = make_frame(num_items=2, num_bars=500).to_pandas()
    monkeypatch.setattr(foresweep, "demo", lambda: prices, raising=False)
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    with pd.option_context("display.max_columns", None, "display.width", None):
        exec(compile(code, "notebook.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"^(promote|hold|naive wins)$", said, flags=re.MULTILINE)
    assert {"skill_vs_last_value", "predictions"} <= set(said.split())
    assert (tmp_path / "report.html").is_file()
    with foresweep.Tracker() as tracker:
        (own,) = tracker.get_runs(model_name="my-model")
    assert (own.state, own.metrics["val_pct_mae"]) == ("complete", 1.94)


def test_the_tracker_example_of_the_readme_finds_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (code,) = [block for block in blocks if "HyperparamTracker" in block]
    exec(compile(code, "README.md", "exec"), {})
    assert re.search(r"^Best: toto_\w+, MAE: 1.9400$", capsys.readouterr().out, flags=re.MULTILINE)
