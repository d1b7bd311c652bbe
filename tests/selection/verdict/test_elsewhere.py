"""The commands of docs/verdict-elsewhere.md, on files that the packages themselves wrote.

The files of tests/foreign are what its `make.py` made by the page's own examples.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.reading.returns import read_returns
from foresweep.errors import DataError
from freqtrade_export import backtest, strategy, zipped
from shells import Shell

ROOT = Path(__file__).parents[3]
FOREIGN = ROOT / "tests" / "foreign"
PAGE = (ROOT / "docs" / "verdict-elsewhere.md").read_text(encoding="utf-8")
COMMANDS = {
    words[2]: words
    for words in map(shlex.split, re.findall(r"^foresweep verdict (.*)$", PAGE, re.MULTILINE))
    for words in [["verdict", *words]]
}


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    for file in FOREIGN.glob("*.csv"):
        shutil.copy(file, tmp_path)
    shutil.copy(FOREIGN / "backtesting.csv", tmp_path / "returns.csv")
    days = np.arange("2023-01-01", "2024-01-01", dtype="datetime64[D]").astype(str).tolist()
    random = np.random.default_rng(0)
    made = {
        name: strategy(
            dict(zip(days, (random.standard_normal(len(days)) - 0.3).tolist(), strict=True)),
            backtest_start=days[0],
            backtest_end=days[-1],
        )
        for name in "AB"
    }
    market = np.cumsum(0.01 * random.standard_normal(len(days))).tolist()
    zipped(tmp_path / "backtest-result-2024-01-01_00-00-00.zip", backtest(**made), days, market)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("forecasts.csv", 4, "HOLD: "),
        ("returns.csv", 4, "HOLD: "),
        ("vectorbt.csv", 4, "HOLD: "),
        ("backtesting.csv", 4, "HOLD: "),
        ("backtest-result-2024-01-01_00-00-00.zip", 4, "HOLD: "),
    ],
)
def test_a_command_of_the_page_judges_what_its_example_wrote(
    shell: Shell, file: str, code: int, said: str
) -> None:
    assert shell(*COMMANDS[file], code=code).startswith(said)


def test_every_command_of_the_page_is_tried() -> None:
    assert set(COMMANDS) == {
        "losses.csv", "forecasts.csv", "returns.csv", "vectorbt.csv", "backtesting.csv",
        "backtest-result-2024-01-01_00-00-00.zip",
    }  # fmt: skip  # losses.csv: tests/slow/test_verdict_elsewhere.py


def test_parameter_sets_of_vectorbt_are_trials_by_their_levels() -> None:
    table = read_returns(FOREIGN / "vectorbt.csv")
    assert table.trials[-1] == "buy and hold"
    assert "fast_window=5, slow_window=13" in table.trials
    assert len(table.trials) == 11


def test_an_account_of_backtesting_py_becomes_returns_of_its_file() -> None:
    table = read_returns(FOREIGN / "equity.csv")
    assert table.trials == ("equity",)
    worth = np.cumprod(1 + table.returns[0, :, 0])
    lines = (FOREIGN / "equity.csv").read_text().splitlines()
    first, last = (float(lines[n].split(",")[1]) for n in (1, -1))
    assert worth[-1] == pytest.approx(last / first)


@pytest.mark.parametrize("name", ["trades.csv", "stats.csv"])
def test_other_tables_of_backtesting_py_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"of backtesting.py: .*_equity_curve"):
        read_returns(FOREIGN / name)


def test_autogluons_own_leaderboard_is_refused(shell: Shell) -> None:
    said = shell.error("verdict", "--losses", "leaderboard.csv", "--benchmark", "Naive", code=1)
    assert "leaderboard.csv is AutoGluon's leaderboard" in said
