"""The verdict on what a strategy search earned: what is counted, what is asked, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from foresweep.errors import DataError, ForesweepError, UnknownName, UsageError
from foresweep.evaluation.trading import sharpe
from foresweep.records import Outcome, StrategySharpe
from foresweep.selection.verdict.returns import AskedReturns, verdict_on_returns
from foresweep.stats.overfitting import deflated_sharpe, expected_maximum
from shells import Shell

BARS, SPLIT = 1100, 700
HOLD = "buy and hold"
YEAR = np.sqrt(365.25)
ASKED = AskedReturns(benchmarks=(HOLD,), costs="included", test_from="2021-12-01")


def frame(ratios: dict[str, float], *, seed: int = 3, bars: int = BARS) -> pl.DataFrame:
    """Returns a day: a market, and trials that hold half of it and earn these Sharpe ratios a year
    over it."""
    rng = np.random.default_rng(seed)
    market = 0.01 * rng.standard_normal(bars) + 0.0002
    days = np.datetime64("2020-01-01", "D") + np.arange(bars)
    columns: dict[str, Any] = {"Date": days.astype(str), HOLD: market}
    for name, ratio in ratios.items():
        own = rng.standard_normal(bars)
        columns[name] = market + 0.01 * (own - own.mean() + ratio / YEAR)
    return pl.DataFrame(columns)


POOR = {f"fast={k}, slow=50": -0.6 - 0.1 * k for k in range(8)}
GOOD = POOR | {"good": 2.6}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def put(table: pl.DataFrame, name: str = "returns.csv") -> Path:
        path = tmp_path / name
        table.write_parquet(path) if name.endswith("parquet") else table.write_csv(path)
        return path

    return put


Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["returns.csv", "returns.parquet"])
def test_a_strategy_that_earns_more_than_the_market_is_promoted(write: Write, name: str) -> None:
    found = verdict_on_returns(write(frame(GOOD), name), ASKED)
    assert (found.outcome, found.candidate) == (Outcome.PROMOTE, "good")
    assert (found.num_tested, found.num_trials, found.num_items) == (9, 9, 1)
    assert found.num_origins == {"val": SPLIT, "test": BARS - SPLIT}
    assert [a.opponent for a in found.against] == [HOLD, "cash"]


def test_what_is_earned_over_the_benchmark_is_told_a_year(write: Write) -> None:
    table = frame(GOOD)
    found = verdict_on_returns(write(table), ASKED)
    over = (table["good"] - table[HOLD]).to_numpy()[:SPLIT]
    market = found.against[0]
    assert market.raw_skill == pytest.approx(365.25 * over.mean(), rel=1e-3)
    assert market.scaled_skill == pytest.approx(over.mean() / over.std(ddof=1) * YEAR, rel=1e-3)
    assert market.lower_skill is not None
    assert market.upper_skill is not None
    assert market.lower_skill < market.scaled_skill < market.upper_skill


def test_the_sharpe_ratio_is_deflated_by_every_trial_that_was_tried(write: Write) -> None:
    table = frame(GOOD)
    found = verdict_on_returns(write(table), replace(ASKED, num_trials=400))
    own = table["good"].to_numpy()[:SPLIT]
    year = 365.25 * (BARS - 1) / (BARS - 1)
    ratio, error = sharpe(own, year)
    ratios = np.array([sharpe(table[n].to_numpy()[:SPLIT], 1.0)[0] for n in GOOD])
    theirs = deflated_sharpe(own, ratios, num_effective=400.0)
    shown = found.sharpe
    assert isinstance(shown, StrategySharpe)
    assert theirs is not None
    assert shown.annual == pytest.approx(ratio)
    assert shown.upper == pytest.approx(ratio + 1.96 * error, rel=1e-3)
    assert shown.luck == pytest.approx(ratios.std(ddof=1) * expected_maximum(400) * YEAR)
    assert shown.deflated == pytest.approx(theirs.probability)
    assert found.num_trials == 400


def test_trials_beyond_the_file_cost_the_best_of_them(write: Write) -> None:
    path = write(frame(POOR | {"good": 2.4}))
    few, many = (verdict_on_returns(path, replace(ASKED, num_trials=n)) for n in (None, 5000))
    assert few.against[0].pvalue < 0.05 < many.against[0].pvalue
    assert many.outcome is Outcome.HOLD


def test_skill_free_trials_over_long_years_end_in_the_market_wins(write: Write) -> None:
    table = frame({f"t{k}": -1.5 - 0.1 * k for k in range(6)}, bars=4000)
    found = verdict_on_returns(write(table), replace(ASKED, test_from="2029-01-01"))
    assert found.outcome is Outcome.NAIVE_WINS
    assert found.answer == f"BASELINE WINS: {HOLD}"
    assert "none can have a Sharpe ratio over it of 0.5 a year" in found.reason


def test_losing_less_than_a_falling_market_is_not_enough(write: Write) -> None:
    table = frame(GOOD).with_columns(pl.exclude("Date") - 0.004)
    found = verdict_on_returns(write(table), ASKED)
    assert found.outcome is Outcome.HOLD
    assert "proved better" not in found.reason
    assert "no proof that it is better than cash" in found.reason


def test_borrowing_to_hold_twice_the_market_is_no_find(write: Write) -> None:
    table = frame(POOR).with_columns(pl.col(HOLD) + 0.002)  # a market that anybody would hold
    noise = 1e-4 * np.random.default_rng(1).standard_normal(BARS)
    table = table.with_columns((2 * pl.col(HOLD) + pl.Series(noise)).alias("twice"))
    found = verdict_on_returns(write(table), replace(ASKED, candidate="twice"))
    market, cash = found.against
    assert cash.superior == ("twice",)
    assert market.superior == ()
    assert market.raw_skill == pytest.approx(0.0, abs=0.01)
    assert found.outcome is not Outcome.PROMOTE


def test_without_bars_kept_for_a_test_nothing_is_promoted(write: Write) -> None:
    found = verdict_on_returns(write(frame(GOOD)), replace(ASKED, test_from=None))
    assert found.outcome is Outcome.HOLD
    assert "0 bars in test, 20 are needed" in found.reason
    assert any("give --test-from DATE" in n for n in found.notes)


def test_bars_of_test_change_nothing_before_they_are_opened(write: Write) -> None:
    table = frame(POOR)
    later = pl.col("Date") >= "2021-12-01"
    spoilt = table.with_columns(
        [pl.when(later).then(-pl.col(n)).otherwise(pl.col(n)) for n in POOR]
    )
    first, second = (
        verdict_on_returns(write(t, f"{n}.csv"), ASKED) for n, t in enumerate((table, spoilt))
    )
    assert not first.looked
    assert first.as_json() == second.as_json()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"costs": None}, "nobody says whether trading costs are in these returns"),
        ({"costs": "none"}, "trading costs are not in these returns"),
        ({"cutoff": "2025-01-01"}, "contaminated: its pretrained weights may have seen data up to"),
    ],
)
def test_what_nobody_can_clear_is_held(write: Write, changed: dict[str, Any], said: str) -> None:
    found = verdict_on_returns(write(frame(GOOD)), replace(ASKED, **changed))
    assert found.outcome is Outcome.HOLD
    assert said in found.reason
    assert not found.looked


def test_a_ratio_too_good_to_be_true_is_held(write: Write) -> None:
    found = verdict_on_returns(write(frame(POOR | {"leak": 9.0})), ASKED)
    assert found.outcome is Outcome.HOLD
    assert "too good to be true: a Sharpe ratio of" in found.reason


def test_never_trading_may_be_the_benchmark_and_is_said_to_be_easy(write: Write) -> None:
    found = verdict_on_returns(write(frame(GOOD)), replace(ASKED, benchmarks=("cash",)))
    assert [a.opponent for a in found.against] == ["cash"]
    assert found.num_tested == 10  # the market is a trial like any other
    assert any("Judged against never trading alone" in n for n in found.notes)


def test_a_trial_with_holes_counts_and_is_not_tested(write: Write) -> None:
    table = frame(GOOD).with_columns(
        pl.when(pl.col("good") < -0.02).then(None).otherwise(pl.col("good")).alias("good")
    )
    found = verdict_on_returns(write(table), ASKED)
    assert found.candidate != "good"
    assert (found.num_tested, found.num_trials) == (8, 9)
    assert any("so they count and are not tested: good." in n for n in found.notes)
    with pytest.raises(DataError, match="good lacks returns on bars where buy and hold has some"):
        verdict_on_returns(write(table), replace(ASKED, candidate="good"))


def test_items_are_held_in_equal_parts_and_none_may_carry_it_alone(write: Write) -> None:
    pieces = []
    for n in range(6):
        wide = frame({"one": 9.0 if n == 2 else -0.3, "other": -0.5}, seed=n)
        long = wide.unpivot(index="Date", variable_name="trial", value_name="return")
        pieces.append(long.with_columns(symbol=pl.lit(f"X{n}")))
    found = verdict_on_returns(write(pl.concat(pieces)), ASKED)
    assert (found.num_items, found.candidate) == (6, "one")
    assert found.outcome is Outcome.HOLD
    assert "one item carries it: without X2" in found.reason


def test_very_many_bars_are_judged_by_the_day(write: Write, monkeypatch: Any) -> None:
    monkeypatch.setattr("foresweep.selection.verdict.returns.MOST_BARS", 500)
    table = frame(POOR)
    twice = pl.concat(
        [
            table.with_columns((pl.col("Date") + f" {hour}:00:00").alias("Date"))
            for hour in ("10", "15")
        ]
    ).sort("Date")
    found = verdict_on_returns(write(twice), ASKED)
    assert found.num_origins["val"] == SPLIT
    one = table["fast=0, slow=50"].to_numpy()[:SPLIT]
    expected = 365.25 * ((1 + one) ** 2 - 1).mean()
    said = verdict_on_returns(write(twice), replace(ASKED, candidate="fast=0, slow=50"))
    assert said.against[1].raw_skill == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"benchmarks": ("buy and hld",)}, UnknownName, "did you mean 'buy and hold'"),
        ({"candidate": "god"}, UnknownName, "did you mean 'good'"),
        ({"candidate": HOLD}, UsageError, "cannot be both candidate and benchmark"),
        ({"test_from": "2031-01-01"}, UsageError, "leaves no bar of .* for test: they go from"),
        ({"test_from": "2019-01-01"}, UsageError, "leaves no bar of .* for val"),
    ],
)
def test_words_that_fit_no_file_are_refused(
    write: Write, changed: dict[str, Any], kind: type[ForesweepError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        verdict_on_returns(write(frame(GOOD)), replace(ASKED, **changed))


def test_a_single_trial_is_asked_how_many_were_tried(write: Write) -> None:
    path = write(frame({"good": 2.6}))
    with pytest.raises(UsageError, match="the best of how many"):
        verdict_on_returns(path, ASKED)
    found = verdict_on_returns(path, replace(ASKED, num_trials=1))
    assert (found.num_trials, found.pbo) == (1, None)
    assert found.against[0].superior == ("good",)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


TOLD = ("--benchmark", HOLD, "--costs", "included", "--test-from", "2021-12-01")


def test_the_command_says_it_in_the_words_of_returns(shell: Shell, write: Write) -> None:
    write(frame(GOOD))
    out = shell("verdict", "--returns", "returns.csv", *TOLD, code=0)
    assert out.startswith("PROMOTE: every gate is passed.")
    for words in (
        "Judged by  returns (of the capital, a bar), 1 item",
        "To beat    buy and hold, as asked; and cash",
        "Evidence   val 700 bars, test 400 bars",
        "return a year over buy and hold",
        "its Sharpe ratio a year on test",
        "would be found here in 4 of 5 cases",
        "The best of 9 trials without any skill is expected to show",
        "(the deflated Sharpe ratio)",
        "no weights",
    ):
        assert words in out, words
    assert "skill on val" not in out.replace("1 skill on val", "")
    found = json.loads(shell("verdict", "--returns", "returns.csv", *TOLD, "--json", code=0))
    assert found["metric"] == "returns"
    assert found["sharpe"]["lower"] < found["sharpe"]["annual"] < found["sharpe"]["upper"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--returns", "x.csv"), "--returns needs one --benchmark"),
        (("--returns", "x.csv", *TOLD, "--horizon", "5"), "returns are judged bar by bar"),
        (("--returns", "x.csv", *TOLD, "--losses", "y.csv"), "two questions"),
        (("--returns", "x.csv", "--benchmark", "b", "--costs", "yes"), "say included or none"),
        (("--losses", "x.csv", *TOLD), "--costs is for --returns FILE"),
        (("--costs", "none"), "--costs is for --returns FILE"),
        (("--returns", "x.csv", "--benchmark", "b", "--test-from", "none"), "write a date"),
    ],
)
def test_options_without_effect_are_refused(
    shell: Shell, words: tuple[str, ...], said: str
) -> None:
    assert said in shell.error("verdict", *words, code=2)


def timed(rep: int, *, drift: float, short: bool) -> pl.DataFrame:
    """A market with volatility that comes and goes, and 30 trials that are in it at random."""
    random = np.random.default_rng([rep, 7])
    bars = np.arange(750)
    swing = np.exp(0.5 * np.sin(bars / 40) + 0.3 * random.standard_normal(750))
    market = 0.01 * swing * random.standard_t(4, 750) / np.sqrt(2) + drift
    columns = {"Date": (np.datetime64("2018-01-01", "D") + bars).astype(str), HOLD: market}
    for k in range(30):
        inside = np.repeat(random.random(75) < random.uniform(0.2, 0.9), 10)
        columns[f"t{k}"] = np.where(inside, market, -market if short else 0.0)
    columns["twice"] = 2.0 * market + 1e-4 * random.standard_normal(750)
    return pl.DataFrame(columns)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("benchmark", "drift", "short"),
    [("cash", 0.0, False), ("cash", 0.0, True), (HOLD, 0.0, False), (HOLD, 6e-4, False)],
)
def test_a_search_without_skill_finds_nothing(
    write: Write, benchmark: str, drift: float, short: bool
) -> None:
    found = promoted = 0
    asked = AskedReturns(benchmarks=(benchmark,), costs="included", test_from="2019-07-01")
    for rep in range(200):
        told = verdict_on_returns(write(timed(rep, drift=drift, short=short)), asked)
        found += bool(set.intersection(*(set(a.superior) for a in told.against)))
        promoted += told.outcome is Outcome.PROMOTE
    assert found / 200 <= 0.08  # of 5 %, two standard errors of 200 sweeps
    assert promoted / 200 <= 0.02
