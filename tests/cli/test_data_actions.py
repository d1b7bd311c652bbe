"""`data check --write-actions`: a draft that can be read back and lets the item through."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from foresweep.errors import DataError
from panels import walk_frame, weekdays
from shells import Shell

TIMES = weekdays(300)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def split_file(folder: Path, item: str, ratio: float) -> None:
    """A walk that is split on its day 150."""
    frame = walk_frame(item, TIMES, volatility=0.005).drop("item_id")
    factor = pl.when(pl.int_range(pl.len()) < 150).then(ratio).otherwise(1.0)
    prices = [pl.col(c) * factor for c in ("open", "high", "low", "close")]
    frame.with_columns(*prices, volume=pl.col("volume") / factor).write_csv(folder / f"{item}.csv")


def test_the_draft_lets_the_item_through(shell: Shell, tmp_path: Path) -> None:
    data, draft = tmp_path / "prices", str(tmp_path / "draft.csv")
    data.mkdir()
    split_file(data, "SPLIT", 4)
    split_file(data, "SPUN", 1.25)
    split_file(data, "WHOLE", 1)
    shell("data", "check", str(data), "--write-actions", draft, code=1)
    assert f"2 lines for an actions file in {draft}" in shell.err
    day = str(TIMES[150])[:10]
    lines = Path(draft).read_text().splitlines()
    assert lines[0] == "item,date,ratio,kind,seen"
    assert lines[1].startswith(f"SPLIT,{day},4,split,")
    assert lines[2].startswith(f"SPUN,{day},1.2")
    found = json.loads(shell("data", "check", str(data), "--actions", draft, "--json"))
    assert [f["rule"] for f in found["findings"] if f["item"]] == []
    assert found["items"] == ["SPLIT", "SPUN", "WHOLE"]


def test_the_draft_is_written_where_nothing_else_is_left(shell: Shell, tmp_path: Path) -> None:
    split_file(tmp_path, "SPLIT", 4)
    draft = tmp_path / "draft.csv"
    wrong = DataError.exit_code
    shell("data", "check", str(tmp_path / "SPLIT.csv"), "--write-actions", str(draft), code=wrong)
    assert "SPLIT," in draft.read_text()
    shell("data", "check", str(tmp_path / "SPLIT.csv"), "--actions", str(draft))
    said = shell.error(
        "data", "check", "demo", "--write-actions", str(draft), code=DataError.exit_code
    )
    assert "is not overwritten" in said


def test_many_findings_are_told_by_a_few_of_each_rule(shell: Shell, tmp_path: Path) -> None:
    """One finding a line; all errors, and every finding only where it is asked for."""
    frame = walk_frame("MANY", TIMES).drop("item_id")
    bad = pl.int_range(pl.len()) % 150 == 70
    for name in [f"A{k}" for k in range(30)]:
        frame.with_columns(low=pl.when(bad).then(0.0).otherwise("low")).write_csv(
            tmp_path / f"{name}.csv"
        )
    for name in ("EMPTY", "VOID", "BLANK"):
        (tmp_path / f"{name}.csv").write_text("")
    few = shell("data", "check", str(tmp_path), code=1)
    shown = few[: few.index("Shown are")]
    assert shown.count(": empty_file: ") == 3
    assert shown.count("non_positive_price: ") == 2
    assert "--all shows every one" in few
    every = shell("data", "check", str(tmp_path), "--all", code=1)
    assert every.count("non_positive_price: ") == 60
    assert "--all" not in every
