"""What the terminal says of a lead, and of no lead, and its tables where it is narrow."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from foresweep.cli.tables import plain_table, verdict_line
from foresweep.records import Run
from foresweep.selection.leaderboard import Leaderboard, leaderboard
from runs import make_run

NAIVE = make_run("last-value", 0, 2.0, skill=0.0)


def trained(number: int, score: float, p: float) -> Run:
    run = make_run("toto", number, score, skill=1 - score / 2.0)
    more = {"val_dm_pvalue_vs_naive": p, "val_pinball": score / 3}
    return replace(run, metrics={**run.metrics, **more})


def board(*runs: Run, metric: str = "val_pct_mae") -> Leaderboard:
    naive = replace(NAIVE, metrics={**NAIVE.metrics, "val_pinball": 0.8})
    return leaderboard([naive, *runs], metric=metric)


def test_no_lead_is_called_by_its_name() -> None:
    said = verdict_line(board(trained(1, 2.1, 0.9), trained(2, 2.2, 0.9)))
    assert said.startswith("Nothing beats naive")
    assert "5.00 % worse" in said


@pytest.mark.parametrize(("p", "verdict"), [(0.02, "may well be luck"), (0.01, "hardly luck")])
def test_a_lead_counts_only_when_shared_out_over_all_trials(p: float, verdict: str) -> None:
    """Of four trials, a lead counts below .05 / 4 = .0125."""
    others = [trained(k, 2.0 + k / 10, 0.9) for k in (2, 3, 4)]
    said = verdict_line(board(trained(1, 1.9, p), *others))
    assert verdict in said
    assert "best of 4" in said
    assert "0.0125" in said


def test_a_run_that_does_not_lead_is_not_called_the_best() -> None:
    table = board(trained(1, 1.8, 0.01), trained(2, 1.9, 0.01))
    second = table.rows[1]
    assert "one of 2 trained runs" in verdict_line(table, second)


def test_the_p_value_of_one_loss_is_not_shown_beside_another() -> None:
    said = verdict_line(board(trained(1, 1.8, 0.01), metric="val_pinball"))
    assert "p = " not in said
    assert "No test of val_pinball" in said


def test_a_lead_too_good_for_prices_points_to_a_leak() -> None:
    assert "Look for a leak" in verdict_line(board(trained(1, 1.6, 0.001)))


def drawn(width: int, *headings: str, rows: list[list[str]]) -> str:
    table = plain_table(*headings)
    for row in rows:
        table.add_row(*row)
    out = StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_a_table_wraps_its_wordy_column_and_breaks_no_word() -> None:
    rows = [["seasonal-naive", "20 epochs (embeddings only over weights)", "2.784", "complete"]]
    said = drawn(60, "model", "config", ">val_pct_mae", "state", rows=rows)
    assert {"seasonal-naive", "val_pct_mae", "complete", "embeddings"} <= set(
        said.replace("(", " ").split()
    )
    assert max(map(len, said.splitlines())) <= 60


def test_a_table_without_room_for_its_words_becomes_paragraphs() -> None:
    rows = [["sweep_20261129_220041_14249ca2", "complete", "toto, chronos2", "-", "pct_mae"]]
    said = drawn(50, "sweep", "state", "models", "family", "objective", rows=rows)
    assert said.splitlines()[0].rstrip() == "sweep sweep_20261129_220041_14249ca2"
    assert "state complete | models toto, chronos2 | objective pct_mae" in " ".join(said.split())
    assert "family" not in said  # nothing is said of it


def test_a_word_longer_than_any_table_has_room_for_is_folded_and_whole() -> None:
    path = "/a" * 60
    said = drawn(40, "run", "value", rows=[["checkpoint", path]])
    assert "".join(said.split()[-8:]).endswith("/a/a")
    assert path in "".join(said.split())


@pytest.mark.parametrize("width", range(40, 100))
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    rows = [["12", "seasonal-naive", "garman-klass", "2.784", "-25.24 %", "0.1 s", "complete"]]
    headings = (">#", "model", "config", ">val_pct_mae", ">skill vs naive", ">training", "state")
    said = drawn(width, *headings, rows=rows)
    assert max(map(len, said.splitlines())) <= width
    assert {"seasonal-naive", "garman-klass", "val_pct_mae"} <= set(said.split())
    assert (" | " in said) == (width < 76)  # a paragraph only where words have no room
