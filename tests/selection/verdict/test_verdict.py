"""Every outcome of the verdict on planted losses, and what may be read when."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from foresweep.errors import DataError, UnknownName
from foresweep.records import Outcome, Verdict
from foresweep.selection.verdict.case import Case, PartLosses, Weights, choose_benchmark
from foresweep.selection.verdict.gates import judge, judge_all
from foresweep.stats.sequential import SequentialTest
from independent_verdict import anytime
from planted_losses import BENCHMARK, LAST, case, losses, make_table, nan_cells, opener, skill_free

ONE_GOOD = [*skill_free(30), 0.08]
GOOD = "t30"


def verdict(skills: list[float], candidate: str | None = None, **changed: Any) -> Verdict:
    """On a table of these skills whose test agrees with val."""
    test = changed.pop("test", None)
    number = changed.pop("number", 1)
    table, every = make_table(skills, **changed)
    return judge(case(table, candidate), opener(test or every, number=number))


def failed(found: Verdict) -> list[tuple[int, str]]:
    return [(c.gate, c.name) for c in found.checks if c.passed is False]


def test_a_skilful_trial_among_many_is_promoted() -> None:
    found = verdict(ONE_GOOD)
    assert (found.outcome, found.candidate) == (Outcome.PROMOTE, GOOD)
    assert all(c.passed for c in found.checks)
    assert found.members == (GOOD,)
    assert found.looked


def test_trials_without_skill_end_in_naive_wins() -> None:
    found = verdict(skill_free())
    assert found.outcome is Outcome.NAIVE_WINS
    assert "none of 60 trials is better than random-walk" in found.reason
    assert not found.looked


def test_naive_does_not_win_while_a_useful_skill_may_be_there() -> None:
    found = verdict([*skill_free(30), 0.02], noise=1.5)
    assert found.outcome is Outcome.HOLD
    assert "too little evidence: no proof" in found.reason
    assert found.against[0].max_upper_skill > 0.05


def test_few_origins_are_too_little_evidence_whatever_they_show() -> None:
    for skills in (ONE_GOOD, skill_free()):
        found = verdict(skills, origins=19)
        assert found.outcome is Outcome.HOLD
        assert found.reason.startswith("too little evidence: 19 effective origins in val")
        assert not found.looked


def test_a_count_just_short_of_enough_is_not_rounded_up() -> None:
    found = verdict(ONE_GOOD, effective_origins={"val": 19.96, "test": 60.0})
    assert found.reason.startswith("too little evidence: 19.9 effective origins in val, 20 are")


def test_overlapping_origins_do_not_count_whole() -> None:
    table, every = make_table(ONE_GOOD, stride=1, effective_origins={"val": 12.8, "test": 12.8})
    found = judge(case(table), opener(every))
    assert (0, "effective origins in val") in failed(found)


def test_blocks_too_short_for_cscv_are_too_little_evidence() -> None:
    found = verdict(ONE_GOOD, stride=1, origins=25, effective_origins={"val": 25, "test": 25})
    assert (0, "blocks for CSCV") in failed(found)
    assert found.num_blocks == 4


def test_a_candidate_outside_the_set_is_held_and_the_members_are_named() -> None:
    found = verdict(ONE_GOOD, "t3")
    assert found.outcome is Outcome.HOLD
    assert found.reason == f"not this one: {GOOD} passed where it did not"


def test_better_than_the_benchmark_but_not_than_last_value_is_held() -> None:
    found = verdict(ONE_GOOD, last_value=0.2, tune={BENCHMARK: 1.0, LAST: 1.1})
    assert found.outcome is Outcome.HOLD
    assert "no proof that it is better than last-value" in found.reason
    assert [a.opponent for a in found.against] == [BENCHMARK, LAST]


def test_skill_in_units_of_volatility_alone_is_not_promoted() -> None:
    found = verdict(ONE_GOOD, GOOD, raw_tilt={GOOD: 0.4})
    assert found.outcome is Outcome.HOLD
    assert (1, f"raw skill against {BENCHMARK}") in failed(found)


def test_a_pick_that_often_loses_elsewhere_is_held() -> None:
    table, every = make_table([0.08, 0.0], origins=64)

    def with_a_moody_trial() -> PartLosses:
        part = table.val()
        block = np.arange(64)[:, None] // 4  # as CSCV cuts it
        raw = part.raw.copy()
        raw[3] = raw[0] - part.scale * np.where(block % 2, 0.4, -0.45)
        return PartLosses(part.names, raw, part.scale)

    found = judge(case(replace(table, val=with_a_moody_trial), "t0"), opener(every))
    assert found.outcome is Outcome.HOLD
    assert found.reason.startswith("probability of loss: whoever picks the best trial on half")
    assert failed(found) == [(2, "probability of loss (CSCV)")]
    assert not found.looked


def test_where_nothing_earlier_is_known_a_scale_of_somebodys_word_proves_nothing() -> None:
    table, every = make_table(ONE_GOOD)
    part = table.val()
    nothing = replace(part, own_scale=np.full(part.scale.shape, np.nan))
    found = judge(case(replace(table, val=lambda: nothing)), opener(every))
    assert found.outcome is Outcome.HOLD
    assert {a.pvalue_rescaled for a in found.against} == {1.0}
    assert "only the file's scale says so" in found.reason


def test_weights_that_may_have_seen_test_are_held() -> None:
    seen = Weights(cutoff="2024-05-31", source="paper", pretrained=True, test_from="2024-05-31")
    found = verdict(ONE_GOOD, weights=seen)
    assert found.outcome is Outcome.HOLD
    assert found.reason.startswith("contaminated: its pretrained weights may have seen data up to")
    assert not found.looked


def test_pretrained_weights_of_unknown_data_are_held() -> None:
    found = verdict(ONE_GOOD, weights=Weights(pretrained=True, test_from="2024-06-01"))
    assert found.reason.startswith("contaminated: where the data")


@pytest.mark.parametrize(
    "weights",
    [
        Weights(cutoff="2024-05-30", pretrained=True, test_from="2024-05-31T00:00:00"),
        Weights(test_from="2024-06-01"),
    ],
)
def test_weights_older_than_test_or_from_scratch_are_clean(weights: Weights) -> None:
    assert verdict(ONE_GOOD, weights=weights).outcome is Outcome.PROMOTE


def test_a_test_that_disagrees_holds() -> None:
    table, every = make_table(ONE_GOOD)
    found = judge(case(table), opener(every | {GOOD: -0.01}))
    assert found.outcome is Outcome.HOLD
    assert found.reason.startswith("test disagrees: raw skill against random-walk on test")
    assert found.looked


def test_without_a_test_nothing_is_promoted() -> None:
    table, _ = make_table(ONE_GOOD)
    found = judge(case(table), None)
    assert (found.outcome, found.reason) == (
        Outcome.HOLD, "there is no sealed test to confirm it",
    )  # fmt: skip


@pytest.mark.parametrize("skills", [skill_free(), [*skill_free(5), 0.001]])
def test_the_test_stays_shut_unless_every_other_gate_is_passed(skills: list[float]) -> None:
    table, every = make_table(skills)
    door = opener(every)
    found = judge(case(table), door)
    assert door.calls == 0  # type: ignore[attr-defined]
    assert {c.passed for c in found.checks if c.gate == 4} == {None}
    assert {a.test_pvalue for a in found.against} == {None}


def test_the_benchmark_is_fixed_before_val_is_read() -> None:
    read: list[str] = []
    table, every = make_table(ONE_GOOD)

    class Tune(dict[str, float]):
        def __getitem__(self, name: str) -> float:
            read.append("tune")
            return super().__getitem__(name)

    def val() -> PartLosses:
        read.append("val")
        return table.val()

    watched = replace(table, tune=Tune(table.tune), val=val)
    judge_all([case(watched), case(watched)], opener(every))
    first = read.index("val")
    assert read[:first].count("tune") >= 4  # of both tables
    assert read.count("val") == 2
    assert choose_benchmark(replace(table, val=_never))[0] == BENCHMARK


def _never() -> PartLosses:
    raise AssertionError("val was read")


def test_the_benchmark_is_the_best_on_tune_though_another_is_better_on_val() -> None:
    table, every = make_table(ONE_GOOD, last_value=0.3)
    assert judge(case(table), opener(every)).benchmark == BENCHMARK


def test_a_tie_on_tune_goes_to_last_value() -> None:
    table, _ = make_table([0.1], tune={BENCHMARK: 1.0, LAST: 1.0})
    assert choose_benchmark(table)[0] == LAST


def test_a_benchmark_is_not_sought_on_val() -> None:
    table, _ = make_table([0.1], tune={})
    with pytest.raises(DataError, match="must not be chosen by looking at val"):
        judge(case(table))


def test_later_judgings_and_looks_are_held_to_stricter_levels() -> None:
    found = verdict(ONE_GOOD, judged_number=3, num_trials=500, number=2)
    assert (found.level, found.test_level) == (0.05 / 9, 0.05 / 4)
    thresholds = {
        c.gate: c.threshold
        for c in found.checks
        if c.name.startswith("p against") and "without" not in c.name
    }
    assert thresholds == {1: 0.05 / 9, 4: 0.05 / 4}
    assert found.num_trials == 500


def test_a_find_that_passes_the_first_look_need_not_pass_the_tenth() -> None:
    table, every = make_table(ONE_GOOD)
    test = every | {GOOD: 0.02}
    first, tenth = (judge(case(table), opener(test, number=n)) for n in (1, 10))
    p = first.against[0].test_pvalue
    assert p is not None
    assert 0.0005 < p < 0.05
    assert (first.outcome, tenth.outcome) == (Outcome.PROMOTE, Outcome.HOLD)


def test_horizons_judged_together_are_held_to_holm() -> None:
    good, every = make_table(ONE_GOOD)
    weak, _ = make_table(skill_free(30))
    found = judge_all([case(good), case(weak)], opener(every))
    assert [v.outcome for v in found] == [Outcome.PROMOTE, Outcome.NAIVE_WINS]
    (check,) = (c for c in found[0].checks if "Holm" in c.name and c.gate == 1)
    assert check.value == pytest.approx(2 * max(a.pvalue for a in found[0].against))
    assert {v.num_horizons for v in found} == {2}


def test_trials_that_are_failed_or_earlier_raise_what_luck_is_expected_to_show() -> None:
    few, many = (verdict(skill_free(), num_trials=n) for n in (60, 5000))
    assert few.expected_best_skill is not None
    assert many.expected_best_skill > 1.2 * few.expected_best_skill
    assert many.num_effective_trials > few.num_effective_trials


def test_missing_cells_are_missing_for_all_and_change_no_outcome() -> None:
    table, every = make_table(ONE_GOOD)
    holes = replace(table, val=lambda: nan_cells(table.val()))
    found = judge(case(holes), opener(every))
    assert found.outcome is Outcome.PROMOTE
    assert found.against[0].raw_skill == pytest.approx(0.08, abs=0.02)


def test_the_cheapest_within_one_standard_error_is_named_beside_the_best() -> None:
    table, every = make_table([0.05, 0.0501, -0.2], cost={"t0": 10.0, "t1": 100.0, "t2": 1.0})
    found = judge(case(table), opener(every))
    assert {found.best, found.one_se_choice} <= {"t0", "t1"}
    assert found.one_se_choice == "t0"


def test_zero_shot_with_the_same_weights_stands_beside_the_candidate() -> None:
    found = verdict([0.08, 0.05], "t0", zero_shot="t1")
    assert found.zero_shot is not None
    assert found.zero_shot["raw_skill_vs_benchmark"] == pytest.approx(0.05, abs=0.02)
    assert verdict([0.08, 0.05], "t0").zero_shot is None


def test_a_verdict_is_plain_json_and_its_open_form_holds_nothing_of_test() -> None:
    found = verdict(ONE_GOOD)
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["outcome"] == "promote"
    test = [a["test_pvalue"] for a in plain["against"]]
    text = json.dumps(found.without_test())
    assert all(p is not None for p in test)
    numbers = [x for a in plain["against"] for k, x in a.items() if k.startswith("test_")]
    assert not any(repr(x) in text for x in numbers)


def test_losses_that_do_not_fit_their_scale_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        PartLosses(("a",), np.zeros((1, 3, 2)), np.ones((2, 3)))


def test_an_unknown_candidate_is_named_with_the_nearest() -> None:
    table, _ = make_table([0.1])
    with pytest.raises(UnknownName, match="did you mean 't0'"):
        judge(case(table, "T0"))


def test_an_item_without_losses_is_not_the_one_that_gains_most() -> None:
    raw = np.ones((2, 30, 3))
    raw[1] += 0.1  # behind on every item that it forecast
    raw[1, :, 2] = 1.05
    raw[:, :, 0] = np.nan
    part = PartLosses(("naive", "t"), raw, np.ones((30, 3)))
    assert part.best_item("t", "naive") == 2


def test_a_table_without_trials_cannot_be_judged() -> None:
    table: Case = make_table([])[0]
    with pytest.raises(DataError, match="no trial"):
        judge(case(table))


def test_equal_losses_show_nothing() -> None:
    table, every = make_table([0.0], noise=0.0)
    part = losses(every, noise=0.0)
    assert part.raw_skill("t0", BENCHMARK) == 0.0
    found = judge(case(table), opener(every))
    assert found.outcome is Outcome.NAIVE_WINS
    assert f"the one trial is not better than {BENCHMARK}, and it cannot have" in found.reason
    assert found.against[0].pvalue == 1.0


def test_naive_does_not_win_beside_a_trial_of_which_nothing_is_known() -> None:
    table, every = make_table(skill_free(5))

    def val() -> PartLosses:
        part = table.val()
        raw = part.raw.copy()
        raw[2] = raw[0] + 0.1 * part.scale  # always as far behind: it cannot be tested
        return PartLosses(part.names, raw, part.scale)

    found = judge(case(replace(table, val=val)), opener(every))
    assert found.outcome is Outcome.HOLD
    assert "(no bound is known)" in found.reason
    assert (found.against[0].max_upper_trial, found.num_tested) == ("t0", 4)


def test_trials_hopelessly_behind_are_not_superior_and_naive_wins() -> None:
    found = verdict([-3.0, -5.0])
    assert found.against[0].t is not None
    assert found.against[0].t < -40
    assert (found.outcome, found.members) == (Outcome.NAIVE_WINS, ())


def test_one_item_does_not_carry_a_candidate() -> None:
    """A benchmark that is far off on one item is beaten there by anybody."""
    case, _ = make_table([0.0] * 20)
    fair = case.val()
    raw = fair.raw.copy()
    raw[:2, :, 7] *= 6.0  # benchmark and last-value
    names = tuple(f"N{k}" for k in range(fair.num_items))
    found = judge(replace(case, val=lambda: replace(fair, raw=raw, items=names)))
    assert found.outcome is Outcome.HOLD
    assert found.against[0].pvalue < 0.05
    assert found.against[0].without_item == "N7"
    assert "one item carries it: without N7" in found.reason


def test_naive_does_not_win_where_a_first_judging_would_have_found_something() -> None:
    case, _ = make_table([0.004] + [-0.02] * 20, seed=3, noise=0.05)
    first = judge(case)
    assert 0.002 < first.against[0].pvalue < 0.05
    fifth = judge(replace(case, judged_number=5))
    assert fifth.against[0].max_upper_skill < 0.05
    assert fifth.outcome is Outcome.HOLD
    assert "would do at a first judging of these cells, and this is judging 5" in fifth.reason


def test_no_number_of_draws_shows_what_the_999th_judging_asks_for() -> None:
    case, _ = make_table([0.3] + [-0.02] * 5, judged_number=999)
    found = judge(case)
    assert found.outcome is Outcome.HOLD
    assert "less than 40,000 draws can show" in found.reason


def test_the_candidate_is_the_best_by_the_losses_that_are_tested() -> None:
    case, _ = make_table([0.04, 0.06], raw_tilt={"t0": -0.1}, noise=0.01)
    val = case.val()
    assert val.raw_mean("t0") < val.raw_mean("t1")
    found = judge(case)
    assert (found.candidate, found.best) == ("t1", "t0")


def test_a_benchmark_that_is_not_last_value_wins_under_its_name() -> None:
    case, _ = make_table([0.0] * 5, last_value=-0.3)
    found = judge(case)
    assert found.outcome is Outcome.NAIVE_WINS
    assert found.answer == f"BASELINE WINS: {BENCHMARK}"
    assert found.reason.startswith(f"proved better than {LAST}, not than {BENCHMARK}: none of 5")
    alone = judge(replace(case, baselines=(BENCHMARK,), last_value=None))
    assert alone.answer == "NAIVE WINS"


def test_a_growing_test_is_read_by_a_sequence_at_the_level_of_its_look() -> None:
    table, every = make_table(ONE_GOOD)
    fixed = judge(case(table), opener(every, number=2))
    grown = judge(case(table), opener(every, number=2, growing=True))
    assert (fixed.growing, grown.growing) == (False, True)
    assert grown.test_level == 0.05 / 4
    part = losses(every, seed=77)
    d = part.scaled(BENCHMARK) - part.scaled(GOOD)
    read = SequentialTest(lags=0, level=0.05 / 4).update(d)
    one = grown.against[0]
    assert read.pvalue == pytest.approx(anytime(d, 0, 0.05 / 4), rel=1e-6)
    assert one.test_pvalue == read.pvalue > float(fixed.against[0].test_pvalue or 0)
    assert one.test_lower_skill == pytest.approx(read.lower / part.scaled(BENCHMARK).mean())
    assert grown.without_test()["against"][0]["test_lower_skill"] is None


def test_a_growing_test_that_is_not_decided_says_to_ask_again() -> None:
    table, every = make_table(ONE_GOOD)
    found = judge(case(table), opener(every, growing=True, origins=19))
    assert found.outcome is Outcome.HOLD
    assert found.reason.startswith("not decided: test disagrees: p against")
    assert found.reason.endswith("ask again once there are new bars")
