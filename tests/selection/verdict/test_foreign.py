"""The verdict on anybody's losses: what is left out, counted and named, and what is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foresweep.data.reading.losses import read_long_table
from foresweep.errors import DataError, UnknownName, UsageError
from foresweep.records import Outcome
from foresweep.selection.verdict.foreign import Asked, earlier_losses, verdict_on_file
from foresweep.selection.verdict.gates import RESCALED
from planted_losses import losses

ORIGINS, ITEMS = 50, 8
POOR = {f"t{k}": -0.02 - 0.003 * k for k in range(6)}
GOOD = POOR | {"good": 0.15}
ASKED = Asked(benchmarks=("naive",), horizon=5, stride=5, cutoff="none")


def frame(
    skills: dict[str, float] = GOOD, *, parts: tuple[str, ...] = ("val", "test"), scale: bool = True
) -> pl.DataFrame:
    """Long table of planted losses, benchmark `naive`; parts follow each other in time."""
    pieces = []
    for n, part in enumerate(parts):
        made = losses({"naive": 0.0} | skills, origins=ORIGINS, items=ITEMS, seed=10 + n)
        first = np.datetime64("2020-01-06", "D") + 400 * n
        days = np.repeat((first + 7 * np.arange(ORIGINS)).astype(str), ITEMS)
        items = np.tile([f"X{i}" for i in range(ITEMS)], ORIGINS)
        for name, raw in zip(made.names, made.raw, strict=True):
            columns = {"trial": [name] * len(days), "origin": days, "item": items}
            columns |= {"part": [part] * len(days), "loss": np.abs(raw).ravel()}
            columns |= {"scale": made.scale.ravel()} if scale else {}
            pieces.append(pl.DataFrame(columns))
    return pl.concat(pieces)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def put(table: pl.DataFrame, name: str = "losses.csv") -> Path:
        path = tmp_path / name
        if name.endswith("parquet"):
            table.write_parquet(path)
        else:
            table.write_csv(path)
        return path

    return put


Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["losses.csv", "losses.parquet"])
def test_a_file_of_losses_is_judged_like_a_sweep(write: Write, name: str) -> None:
    found = verdict_on_file(write(frame(), name), ASKED)
    assert (found.outcome, found.candidate) == (Outcome.PROMOTE, "good")
    assert (found.num_tested, found.num_items) == (7, ITEMS)
    assert found.num_origins == {"test": ORIGINS, "val": ORIGINS}


def test_skill_free_trials_end_in_naive_wins(write: Write) -> None:
    assert verdict_on_file(write(frame(POOR)), ASKED).outcome is Outcome.NAIVE_WINS


def test_without_a_scale_the_benchmarks_earlier_losses_stand_in(write: Write) -> None:
    found = verdict_on_file(write(frame(scale=False)), ASKED)
    assert found.outcome is Outcome.PROMOTE
    assert any("8 cells of val have no earlier losses to scale by" in n for n in found.notes)
    assert found.num_origins["val"] == ORIGINS - 1


def test_a_scale_uses_only_losses_whose_labels_had_come() -> None:
    values = np.array([[1.0], [2.0], [4.0], [8.0]])
    now = earlier_losses(values, lag=2)
    assert np.isnan(now[:2]).all()
    assert now[2, 0] == 1.0
    assert now[3, 0] == pytest.approx((2.0 + 0.9) / 1.9)
    values[2:] = 99.0  # the future of every cell that has a scale
    np.testing.assert_array_equal(earlier_losses(values, lag=2), now)


def test_a_scale_is_at_least_a_quarter_of_what_is_usual() -> None:
    values = np.array([[1e-9, 4.0], [1e-9, 4.0]])
    assert earlier_losses(values, lag=1)[1, 0] == pytest.approx(0.25 * 2.0)


def test_an_item_with_a_hole_keeps_its_last_scale() -> None:
    values = np.array([[1.0, 1.0], [np.nan, 1.0], [1.0, 1.0]])
    assert earlier_losses(values, lag=1)[2, 0] == 1.0


def spoil(table: pl.DataFrame, **at: Any) -> pl.Series:
    """Rows of a table where columns have these values."""
    return table.select(pl.all_horizontal([pl.col(k) == v for k, v in at.items()])).to_series()


FIRST = {"part": "val", "origin": "2020-01-06", "item": "X0"}


def test_nan_repeated_and_contradicting_rows_are_left_out_and_counted(write: Write) -> None:
    table = frame()
    nan = spoil(table, trial="t0", **FIRST)
    table = table.with_columns(loss=pl.when(nan).then(float("nan")).otherwise(pl.col("loss")))
    twice = table.filter(spoil(table, trial="t1", **FIRST))
    table = pl.concat([table, twice, table.filter(spoil(table, trial="t2", **FIRST)).with_columns(
        loss=pl.col("loss") + 1)])  # fmt: skip
    found = verdict_on_file(write(table), ASKED)
    assert found.outcome is Outcome.PROMOTE
    said = " ".join(found.notes)
    assert "1 rows no number for a loss: left out." in said
    assert "1 rows that repeat another: left out." in said
    assert "2 rows that contradict another about the same cell: left out." in said
    assert "Cells of val are missing for 2 trials (t0 0.2 %, t2 0.2 %)" in said


def test_a_trial_that_skips_much_is_left_out_and_named(write: Write) -> None:
    table = frame()
    wild = (pl.col("trial") == "t3") & (pl.col("part") == "val") & (pl.col("loss") > 3)
    found = verdict_on_file(write(table.filter(~wild)), ASKED)
    assert found.num_tested == 6
    assert any(n.startswith("1 trials lack more than 10%") and "t3" in n for n in found.notes)


def test_cells_without_the_benchmark_are_left_out_and_counted(write: Write) -> None:
    table = frame()
    found = verdict_on_file(write(table.filter(~spoil(table, trial="naive", **FIRST))), ASKED)
    assert any("1 cells of val have no loss of naive: left out." in n for n in found.notes)


def test_a_scale_that_is_not_positive_is_left_out_and_counted(write: Write) -> None:
    table = frame()
    bad = spoil(table, **FIRST)
    table = table.with_columns(scale=pl.when(bad).then(0.0).otherwise(pl.col("scale")))
    found = verdict_on_file(write(table), ASKED)
    assert any("1 cells of val have no positive scale: left out." in n for n in found.notes)


def test_trials_without_test_count_and_are_named(write: Write) -> None:
    table = frame()
    only = table.filter((pl.col("part") == "val") | pl.col("trial").is_in(["naive", "good"]))
    found = verdict_on_file(write(only), ASKED)
    assert (found.outcome, found.num_tested) == (Outcome.PROMOTE, 7)
    assert any(n.startswith("6 trials have no losses on test") for n in found.notes)


def test_a_candidate_without_test_is_held(write: Write) -> None:
    table = frame()
    gone = (pl.col("part") == "test") & (pl.col("trial") == "good")
    found = verdict_on_file(write(table.filter(~gone)), ASKED)
    assert found.outcome is Outcome.HOLD
    assert "0 effective origins in test" in found.reason
    assert any("good has no losses on test" in n for n in found.notes)


def test_a_candidate_that_skips_much_of_test_cannot_be_confirmed(write: Write) -> None:
    skipped = (pl.col("part") == "test") & (pl.col("trial") == "good") & (pl.col("item") == "X0")
    with pytest.raises(DataError, match="good lacks more than 10% of naive's cells on test"):
        verdict_on_file(write(frame().filter(~skipped)), ASKED)


def test_rows_of_other_parts_are_counted(write: Write) -> None:
    found = verdict_on_file(write(frame(parts=("train", "val", "test"))), ASKED)
    assert any("3200 rows of part 'train': left out." in n for n in found.notes)


def test_the_benchmark_of_several_is_the_best_on_tune(write: Write) -> None:
    table = frame(GOOD | {"drift": -0.2}, parts=("tune", "val", "test"))
    asked = Asked(benchmarks=("drift", "naive"), horizon=5, stride=5)
    found = verdict_on_file(write(table), asked)
    assert (found.benchmark, found.num_tested) == ("naive", 7)
    assert found.benchmark_why == "the best of 2 baselines on tune"
    with pytest.raises(DataError, match="must not be chosen by looking at val"):
        verdict_on_file(write(frame(GOOD | {"drift": -0.2})), asked)


def test_a_trial_called_last_value_is_an_opponent_too(write: Write) -> None:
    found = verdict_on_file(write(frame(GOOD | {"last-value": 0.3})), ASKED)
    assert [a.opponent for a in found.against] == ["naive", "last-value"]
    assert found.outcome is Outcome.HOLD


def test_earlier_judgings_looks_and_trials_are_counted_when_told(write: Write) -> None:
    path = write(frame())
    found = verdict_on_file(
        path,
        Asked(
            ("naive",), None, 5, 5, num_trials=90, earlier_judged=1, earlier_looks=2, cutoff="none"
        ),
    )
    assert (found.judged_number, found.look_number, found.num_trials) == (2, 3, 90)
    assert not any("first look" in n for n in found.notes)


@pytest.mark.parametrize(("cutoff", "outcome"), [("2020-12-31", "promote"), ("2022-01-01", "hold")])
def test_a_cutoff_is_held_against_the_first_day_of_test(
    write: Write, cutoff: str, outcome: str
) -> None:
    found = verdict_on_file(write(frame()), Asked(("naive",), None, 5, 5, cutoff=cutoff))
    assert found.outcome == outcome


def test_origins_may_be_numbers(write: Write) -> None:
    order = {o: str(n) for n, o in enumerate(frame()["origin"].unique().sort())}
    table = frame().with_columns(pl.col("origin").replace_strict(order))
    found = verdict_on_file(write(table), ASKED)
    assert found.outcome is Outcome.PROMOTE
    with pytest.raises(UsageError, match="numbers"):
        verdict_on_file(write(table), Asked(("naive",), cutoff="2020-01-01"))


def test_a_table_without_items_and_parts_is_one_series_on_val(write: Write) -> None:
    table = frame(parts=("val",)).filter(pl.col("item") == "X0").drop("item", "part")
    found = verdict_on_file(write(table), ASKED)
    assert (found.num_items, found.outcome) == (1, Outcome.HOLD)


WRONG: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "no loss": (lambda t: t.drop("loss"), "has no column loss"),
    "words": (lambda t: t.with_columns(origin="d" + pl.col("origin")), "origins must all be"),
    "nothing left": (lambda t: t.with_columns(loss=pl.lit("n/a")), "no row with a loss is left"),
    "no val": (lambda t: t.filter(pl.col("part") == "test"), "no row of part val"),
    "losses below nothing": (lambda t: t.with_columns(loss=-pl.col("loss")), "below 0: a skill is"),
    "an empty trial": (lambda t: t.with_columns(trial=pl.lit(None, pl.String)), "have no trial"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_files_that_cannot_be_judged_are_refused(write: Write, case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        verdict_on_file(write(change(frame()), "losses.parquet"), ASKED)


def test_test_has_to_lie_after_val(write: Write) -> None:
    with pytest.raises(DataError, match="before val ends"):
        verdict_on_file(write(frame(parts=("test", "val"))), ASKED)


def test_trials_are_named_with_the_nearest(write: Write) -> None:
    path = write(frame())
    with pytest.raises(UnknownName, match="did you mean 'naive'"):
        verdict_on_file(path, Asked(("nave",)))
    with pytest.raises(UnknownName, match="did you mean 'good'"):
        verdict_on_file(path, Asked(("naive",), "goood"))
    with pytest.raises(UsageError, match="both"):
        verdict_on_file(path, Asked(("naive",), "naive"))


def test_only_tables_are_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are read from"):
        read_long_table(tmp_path / "losses.xlsx")


def test_test_losses_in_a_file_change_nothing_before_they_are_opened(write: Write) -> None:
    table = frame(POOR, scale=False)
    other = table.with_columns(
        loss=pl.when(pl.col("part") == "test")
        .then(pl.col("loss") * 3 + 1)
        .otherwise(pl.col("loss"))
    )
    first, second = (
        verdict_on_file(write(t, f"{n}.parquet"), ASKED) for n, t in enumerate((table, other))
    )
    assert first == second


def with_holes(trial: str, chosen: Callable[[pl.DataFrame], pl.Series]) -> pl.DataFrame:
    """The table less the rows of val of a trial that `chosen` picks from the benchmark's."""
    table = frame()
    own = table.filter((pl.col("trial") == "naive") & (pl.col("part") == "val"))
    gone = own.filter(chosen(own)).select("origin", "item").with_columns(trial=pl.lit(trial))
    return table.join(gone, on=["trial", "origin", "item"], how="anti")


def test_a_candidate_that_skips_the_storms_is_held(write: Write) -> None:
    storms = with_holes("good", lambda t: t["scale"] > t["scale"].quantile(0.93))
    found = verdict_on_file(write(storms), ASKED)
    assert found.outcome is Outcome.HOLD
    assert "good lacks cells where losses are large" in found.reason
    assert not found.looked


def test_a_candidate_that_skips_its_worst_windows_is_held(write: Write) -> None:
    worst = with_holes("good", lambda t: t["loss"] > t["loss"].quantile(0.95))
    assert "lacks cells where losses are large" in verdict_on_file(write(worst), ASKED).reason


def test_holes_at_random_cost_a_candidate_and_do_not_end_it(write: Write) -> None:
    drawn = np.random.default_rng(0).random(ORIGINS * ITEMS) < 0.05
    found = verdict_on_file(write(with_holes("good", lambda _: pl.Series(drawn))), ASKED)
    whole = verdict_on_file(write(frame()), ASKED)
    assert found.outcome is Outcome.PROMOTE
    assert found.against[0].scaled_skill < whole.against[0].scaled_skill - 0.005


def test_a_single_trial_is_asked_how_many_were_tried_and_they_count(write: Write) -> None:
    path = write(frame({"only": 0.045}))
    with pytest.raises(UsageError, match="the best of how many"):
        verdict_on_file(path, ASKED)
    alone, of_many = (verdict_on_file(path, replace(ASKED, num_trials=n)) for n in (1, 60))
    p = alone.against[0].pvalue
    assert of_many.against[0].pvalue == pytest.approx(1 - (1 - p) ** 60)
    assert of_many.num_trials == 60


def test_without_last_value_nothing_is_promoted(write: Write) -> None:
    table = frame().with_columns(pl.col("trial").replace({"naive": "my model of 2019"}))
    found = verdict_on_file(write(table), replace(ASKED, benchmarks=("my model of 2019",)))
    assert found.outcome is Outcome.HOLD
    assert "add the losses of last-value" in found.reason


def test_weights_whose_origin_nobody_says_are_held(write: Write) -> None:
    found = verdict_on_file(write(frame()), replace(ASKED, cutoff=None))
    assert found.outcome is Outcome.HOLD
    assert "nobody says where its weights come from" in found.reason


def test_a_skill_that_prices_do_not_show_is_held(write: Write) -> None:
    found = verdict_on_file(write(frame(POOR | {"good": 0.4})), ASKED)
    assert found.outcome is Outcome.HOLD
    assert "too good to be true: a skill of 3" in found.reason


def test_labels_of_val_that_reach_into_test_are_refused(write: Write) -> None:
    table = frame()
    days = table["origin"].unique().sort()
    first = next(d for d in days if d > "2021-01-01")
    order = {d: n if d < first else n + 1 for n, d in enumerate(days)}
    close = table.with_columns(pl.col("origin").replace_strict(order))
    path = write(close)
    assert verdict_on_file(path, replace(ASKED, horizon=2, stride=1)).num_origins["test"] == ORIGINS
    with pytest.raises(
        DataError, match=r"test begins 2 bars after .* leave out the last 4 origins"
    ):
        verdict_on_file(path, replace(ASKED, horizon=5, stride=1))


def doctored(table: pl.DataFrame, parts: tuple[str, ...]) -> pl.DataFrame:
    """The table with a scale that is three times as large wherever t0 loses to the benchmark."""
    cell = ["part", "origin", "item"]
    naive, own = (
        table.filter(pl.col("trial") == name).select(*cell, pl.col("loss").alias(name))
        for name in ("naive", "t0")
    )
    loses = pl.col("part").is_in(parts) & (pl.col("t0") > pl.col("naive"))
    wider = table.join(naive, on=cell).join(own, on=cell)
    return wider.with_columns(
        scale=pl.when(loses).then(3 * pl.col("scale")).otherwise("scale")
    ).drop("naive", "t0")


def test_a_scale_that_knew_the_losses_is_found_out_on_val(write: Write) -> None:
    table = frame(POOR | {"t0": 0.005})
    found = verdict_on_file(write(doctored(table, ("val", "test"))), ASKED)
    assert found.outcome is Outcome.HOLD
    assert found.against[0].superior == ("t0",)
    assert "only the file's scale says so" in found.reason
    assert not found.looked


def test_a_scale_that_knew_the_losses_of_test_is_found_out_there(write: Write) -> None:
    val, test = (
        frame(POOR | {"t0": skill}, parts=(part,))
        for skill, part in ((0.12, "val"), (0.005, "test"))
    )
    late = pl.col("origin").str.to_date() + pl.duration(days=400)
    joined = pl.concat([val, test.with_columns(origin=late.cast(pl.String))])
    found = verdict_on_file(write(doctored(joined, ("test",))), ASKED)
    assert found.outcome is Outcome.HOLD
    (by_file,) = [c for c in found.checks if c.name == "p against naive on test"]
    (by_ours,) = [c for c in found.checks if c.name == f"{by_file.name}, {RESCALED}"]
    assert (by_file.passed, by_ours.passed) == (True, False)
