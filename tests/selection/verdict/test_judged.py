"""The verdict on tracked runs: what it reads, what it records, what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import CheckpointError, NotFound, TrackerError, UsageError
from foresweep.metrics import judged_by, ranked_by
from foresweep.records import Outcome, Run, Verdict
from foresweep.selection.sealed import open_losses, open_returns
from foresweep.selection.verdict.runs import ask, verdict_on_runs
from foresweep.tracker.hiding import hide_run
from foresweep.tracker.queries.runs import first_round, median_seed
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant, spoil_test, stored
from runs import make_run

POOR = {f"t{k}": -0.01 - 0.002 * k for k in range(8)}
GOOD = POOR | {"good": 0.10}


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with Tracker(tmp_path / "sweeps.db") as opened:
        yield opened


def judged(made: Planted, name: str | None = None) -> Verdict:
    (found,) = verdict_on_runs(made.tracker, [None if name is None else made.id(name)])
    return found


def test_the_best_on_val_is_judged_against_the_best_baseline_on_tune(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    found = judged(made)
    assert (found.outcome, found.candidate) == (Outcome.PROMOTE, made.id("good"))
    assert found.benchmark == "random-walk"
    assert [a.opponent for a in found.against] == ["random-walk", "last-value"]
    assert found.label == "toto (good)"
    assert found.num_tested == 9


def test_a_promoted_run_has_its_look_on_record_with_who_when_and_why(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    verdict_on_runs(tracker, who="ann")
    (look,) = tracker.judgings.test_looks()
    assert (look["run_id"], look["who"], look["number"]) == (made.id("good"), "ann", 1)
    assert str(look["why"]).startswith("verdict judging_")
    (row,) = tracker.judgings.verdicts()
    assert (row["outcome"], row["who"]) == ("promote", "ann")


@pytest.mark.parametrize("pretrained", [None, "published"])
def test_naive_wins_says_for_how_long_what_began_from_nothing_was_trained(
    tracker: Tracker, tmp_path: Path, pretrained: str | None
) -> None:
    configs = {f"t{k}": {"max_steps": 100 + k, "pretrained": pretrained} for k in range(8)}
    found = judged(plant(tracker, tmp_path / "runs", POOR, hyperparams=configs))
    assert found.outcome is Outcome.NAIVE_WINS
    assert pretrained or any("trained for 107 steps at most" in note for note in found.notes)
    assert not pretrained or not any("from scratch" in note for note in found.notes)


@pytest.mark.parametrize("name", [None, "t3"])
def test_a_candidate_that_fails_on_val_leaves_the_test_unread(
    tracker: Tracker, tmp_path: Path, name: str | None
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD if name else POOR)
    spoil_test(made)
    found = judged(made, name)
    assert found.outcome is (Outcome.HOLD if name else Outcome.NAIVE_WINS)
    assert tracker.judgings.test_looks() == []
    assert "sealed still" in found.notes[-1]


def test_the_look_is_on_record_before_the_file_is_opened(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    spoil_test(made)
    with pytest.raises(Exception, match="losses"):
        judged(made)
    assert len(tracker.judgings.test_looks()) == 1


def test_a_look_that_would_see_nothing_is_not_recorded(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    shutil.rmtree(tmp_path / "runs" / made.id("good") / "test")
    with pytest.raises(CheckpointError, match="gone"):
        judged(made)
    assert tracker.judgings.test_looks() == []


def test_the_same_verdict_again_is_no_new_judging_and_no_new_look(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    first, second = judged(made), judged(made)
    assert replace(first, notes=()) == replace(second, notes=())
    assert (second.judged_number, second.look_number) == (1, 1)


def test_trials_added_since_the_last_verdict_make_the_next_a_new_judging(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    assert judged(made).judged_number == 1

    def add(source: str) -> None:
        run = tracker.start_run(
            model="toto", hyperparams={"lr": 1e-3}, sweep_id=made.sweep.sweep_id, trial_number=77,
            fingerprints=made.sweep.fingerprints, config_hash=source, source=source,
        )  # fmt: skip
        tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 9.0})

    add(f"reproduces: {made.id('good')}")  # the same trial once more
    assert judged(made).judged_number == 1
    add("quick: one more")
    assert judged(made).judged_number == 2
    assert judged(made).judged_number == 2
    add("quick: and another")
    assert judged(made).level == 0.05 / 9


def test_what_is_stored_of_a_verdict_holds_no_test_number(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD, test_skills={"good": -0.05})
    found = judged(made)
    assert found.reason.startswith("test disagrees: raw skill")
    text = json.dumps(stored(made))
    numbers = [v for a in found.against for v in (a.test_raw_skill, a.test_pvalue, a.test_t)]
    assert not any(repr(v) in text or f"{v:+.4f}" in text for v in numbers)
    assert stored(made)[0]["content"]["reason"] == "test disagrees"


def test_no_reader_shows_a_test_score_after_a_verdict(tracker: Tracker, tmp_path: Path) -> None:
    from foresweep.tracker.jsonfile import dump_json

    made = plant(tracker, tmp_path / "runs", GOOD)
    judged(made)
    with tracker.store.read() as connection:
        from foresweep.tracker.queries.runs import sealed_scores

        secret = sealed_scores(connection, made.id("good"))["test_pct_mae"]
    shown = repr(tracker.get_runs()) + dump_json(tracker) + json.dumps(stored(made))
    assert repr(secret) not in shown


def test_a_second_sweep_on_the_same_prices_is_held_to_a_stricter_level(
    tracker: Tracker, tmp_path: Path
) -> None:
    plant(tracker, tmp_path / "a", GOOD)
    verdict_on_runs(tracker)
    plant(tracker, tmp_path / "b", GOOD, tag="two", horizon=4, items=30)
    (found,) = verdict_on_runs(tracker)
    assert (found.judged_number, found.look_number) == (2, 2)
    assert (found.level, found.test_level) == (0.05 / 4, 0.05 / 4)
    assert found.num_trials == 18


def test_a_spent_test_says_how_to_get_a_fresh_one(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    for name in ("t0", "t1", "t2", "t3"):
        tracker.reveal_test(made.id(name), why="curious")
    found = judged(made)
    assert found.look_number == 5
    assert "200 new bars or more" in found.notes[-1]
    assert "spent" in found.notes[-1]


def test_failed_and_pruned_trials_of_the_lineage_count(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    for state in ("failed", "pruned"):
        trial = tracker.heads.add_trial(
            made.sweep.sweep_id, model="toto", config={}, config_hash="x", train_hash="x", source=""
        )
        run = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id, trial_number=trial.number,
            fingerprints=made.sweep.fingerprints,
        )  # fmt: skip
        tracker.finish_run(run.run_id, state)
    found = judged(made)
    assert (found.num_trials, found.num_tested) == (11, 9)


def test_a_removed_run_is_still_a_trial_among_all_that_are_tested(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    hide_run(tracker, made.id("t0"))
    found = judged(made)
    assert (found.num_trials, found.num_tested) == (9, 9)


CUTOFF = {"date": "2018-01-08", "source": "the paper"}


def test_weights_that_may_know_test_are_held_by_their_card(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(
        tracker, tmp_path / "runs", GOOD,
        hyperparams={"good": {"pretrained": "published"}},
        cards={"good": {"pretrain_cutoff": CUTOFF}},
    )  # fmt: skip
    found = judged(made)
    assert found.reason.startswith("contaminated: its pretrained weights may have seen data up to")
    assert any("the paper" in note for note in found.notes)
    assert tracker.judgings.test_looks() == []


def test_pretrained_weights_without_a_cutoff_are_held(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(
        tracker, tmp_path / "runs", GOOD, hyperparams={"good": {"pretrained": "some/weights"}}
    )
    assert judged(made).reason.startswith("contaminated: where the data")


def test_weights_of_which_some_are_of_unknown_origin_are_held(
    tracker: Tracker, tmp_path: Path
) -> None:
    card = {"pretrain_cutoff": {"date": None, "source": "member b: nobody knows"}}
    made = plant(tracker, tmp_path / "runs", GOOD, cards={"good": card})
    assert judged(made).reason.startswith("contaminated: where the data")


def test_weights_older_than_test_pass_with_a_word_on_val(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(
        tracker, tmp_path / "runs", GOOD,
        hyperparams={"good": {"pretrained": "published"}},
        cards={"good": {"pretrain_cutoff": {"date": "2017-01-01", "source": "s"}}},
    )  # fmt: skip
    found = judged(made)
    assert found.outcome is Outcome.PROMOTE
    assert any("may be memory" in note for note in found.notes)


def test_the_same_weights_without_fine_tuning_stand_beside(
    tracker: Tracker, tmp_path: Path
) -> None:
    weights = {"pretrained": "published"}
    made = plant(
        tracker, tmp_path / "runs", GOOD | {"zero": 0.03},
        hyperparams={"good": weights, "zero": weights | {"finetune": "none"}},
    )  # fmt: skip
    found = judged(made).zero_shot
    assert found is not None
    assert found["trial"] == made.id("zero")


def test_a_trial_in_the_disguise_of_last_value_is_counted_and_not_tested(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    trial = tracker.heads.add_trial(
        made.sweep.sweep_id, model="toto", config={}, config_hash="n", train_hash="n", source=""
    )
    run = tracker.start_run(
        model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id, trial_number=trial.number,
        fingerprints=made.sweep.fingerprints,
    )  # fmt: skip
    shutil.copytree(tmp_path / "runs" / made.id("last-value"), tmp_path / "runs" / run.run_id)
    tracker.finish_run(
        run.run_id, "complete", scores={"val_pct_mae": 1.0, "val_skill": 0.0},
        forecasts_path=tmp_path / "runs" / run.run_id,
    )  # fmt: skip
    found = judged(made)
    assert (found.num_trials, found.num_tested) == (10, 9)
    assert any("forecast the last close everywhere" in note for note in found.notes)
    with pytest.raises(UsageError, match="nothing to judge"):
        verdict_on_runs(tracker, [run.run_id])


def test_of_several_seeds_the_median_one_by_tune_stands_for_its_config(
    tracker: Tracker, tmp_path: Path
) -> None:
    seeds = {"lucky": 0.12, "usual": 0.08, "poor": 0.05}
    made = plant(
        tracker, tmp_path / "runs", POOR | seeds, configs=dict.fromkeys(seeds, "one config")
    )
    found = judged(made, "lucky")
    assert found.candidate == made.id("usual")
    assert found.num_tested == 9
    assert any("median one by tune" in note for note in found.notes)


def test_seeds_added_by_later_sweeps_do_not_choose_which_one_stands_for_a_config() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)

    def run(name: str, seed: int, hour: int) -> Run:
        made = make_run("toto", seed, 1.0)
        return replace(made, run_id=name, seed=seed, created_at=day + timedelta(hours=hour))

    alone, second, third, late = (run(f"r{k}", k, hour) for k, hour in enumerate((0, 2, 3, 5)))
    begun = [day + timedelta(hours=h) for h in (-1, 1, 4)]  # three sweeps
    assert first_round([late, third, alone, second], begun) == [alone, second, third]
    assert first_round([alone], begun) == [alone]
    assert first_round([alone, late], begun) == [alone, late]  # its first round came late


def test_further_seeds_are_trials_that_gate_1_counts(tracker: Tracker, tmp_path: Path) -> None:
    seeds = {"lucky": 0.12, "usual": 0.08, "poor": 0.05}
    alike = dict.fromkeys(seeds, "one config")
    made = plant(tracker, tmp_path / "runs", POOR | seeds, configs=alike)
    found = judged(made)
    assert (found.num_tested, found.num_trials) == (9, 11)
    # no draw is as large: 1 / (1 + draws), by Sidak over the two that no column stands for
    smallest = 1 - (1 - 1 / 2001) ** (11 / 9)
    assert found.against[0].pvalue == pytest.approx(smallest)


def test_of_two_seeds_the_better_one_on_tune_is_the_lower_median() -> None:
    runs = [replace(make_run("toto", k, 1.0), metrics={"tune_pct_mae": v}) for k, v in
            enumerate((2.0, 1.0))]  # fmt: skip
    assert median_seed(runs, "pct_mae") is runs[1]


def test_horizons_of_one_command_are_judged_together(tracker: Tracker, tmp_path: Path) -> None:
    made = [plant(tracker, tmp_path / f"h{h}", GOOD, tag=f"h{h}", horizon=h) for h in (1, 5)]
    found = verdict_on_runs(tracker, [m.id("good") for m in made])
    assert [v.outcome for v in found] == [Outcome.PROMOTE, Outcome.PROMOTE]
    assert {(v.judged_number, v.look_number, v.num_horizons) for v in found} == {(1, 1, 2)}
    assert any("Holm over 2 horizons" in c.name for c in found[0].checks)


def test_two_runs_of_the_same_windows_are_not_two_horizons(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    with pytest.raises(UsageError, match="same windows"):
        verdict_on_runs(tracker, [made.id("good"), made.id("t0")])


def test_survivorship_is_always_spoken_of(tracker: Tracker, tmp_path: Path) -> None:
    said = []
    for tag, findings, items in (("a", ("survivorship",), 31), ("b", (), 31), ("c", (), 3)):
        plant(tracker, tmp_path / tag, POOR, tag=tag, findings=findings, items=items)
        (found,) = verdict_on_runs(tracker)
        said += [note for note in found.notes if note.startswith("Survivorship")]
    assert len(set(said)) == 3


def test_the_wishes_of_the_guide_are_held_against_the_facts(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    found = {t.name: t for t in judged(made).targets}
    assert list(found) == [
        "val_pct_mae", "val_r2", "val_skill", "val_dm_pvalue_vs_naive", "test_gap",
    ]  # fmt: skip
    assert found["val_r2"].met is False
    assert "would speak of a leak" in found["val_r2"].comment
    assert "implausible" in found["val_pct_mae"].comment
    assert found["val_skill"].met is True
    assert found["val_dm_pvalue_vs_naive"].met is None
    assert found["test_gap"].met is True


def test_unjudgeable_runs_are_refused_with_the_way_out(tracker: Tracker, tmp_path: Path) -> None:
    by_hand = tracker.log_run("toto", {}, {"val_pct_mae": 1.0})
    made = plant(tracker, tmp_path / "runs", GOOD)
    with pytest.raises(UsageError, match="--losses FILE"):
        verdict_on_runs(tracker, [by_hand])
    with pytest.raises(UsageError, match="baseline"):
        verdict_on_runs(tracker, [made.id("drift")])
    shutil.rmtree(tmp_path / "runs" / made.id("t0"))
    with pytest.raises(CheckpointError, match="gone"):
        verdict_on_runs(tracker, [made.id("t0")])
    assert tracker.judgings.verdicts() == []


def test_trials_whose_losses_are_gone_are_counted_and_named(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    shutil.rmtree(tmp_path / "runs" / made.id("t0"))
    found = judged(made)
    assert (found.num_trials, found.num_tested) == (9, 8)
    assert any("1 complete trials have no losses on this disk" in note for note in found.notes)


def test_losses_of_other_windows_than_the_record_says_are_refused(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "a", GOOD)
    other = plant(tracker, tmp_path / "b", GOOD, tag="other")
    wrong = tmp_path / "b" / other.id("good") / "val" / "losses.npz"
    shutil.copy(wrong, tmp_path / "a" / made.id("good") / "val" / "losses.npz")
    with pytest.raises(CheckpointError, match="other windows"):
        judged(made, "good")


def test_the_common_door_to_losses_does_not_open_test(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    with pytest.raises(UsageError, match="sealed"):
        open_losses(made.runs["good"], "test")


def test_only_one_module_reads_test_losses() -> None:
    """Whoever calls `load_losses` or names the file could look past the door."""
    root = Path(__file__).parents[3] / "src" / "foresweep"
    found = {
        str(p.relative_to(root))
        for p in root.rglob("*.py")
        if "load_losses" in p.read_text() or "losses.npz" in p.read_text()
    }
    assert found == {"evaluation/losses.py", "evaluation/backtest.py", "selection/sealed.py"}


@pytest.mark.parametrize(
    ("objective", "metric"),
    [
        ("pct_mae", ("pct_mae", "pct_mae")),
        ("sharpe,pinball", ("pinball", "pinball")),
        ("pct_mae, pinball", ("pct_mae", "pct_mae")),
        ("sharpe", ("sharpe", "pct_mae")),
        ("rank_ic,sharpe", ("rank_ic", "pct_mae")),
    ],
)
def test_tests_and_ranks_go_by_the_objectives_first_loss_per_window(
    objective: str, metric: tuple[str, str]
) -> None:
    """Without such a loss ranks go by the objective itself, tests by pct_mae."""
    assert (ranked_by(objective), judged_by(objective)) == metric


def test_a_sweep_under_pinball_is_judged_by_pinball(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD, objective="pinball")
    for run in tracker.get_runs():
        tracker.add_scores(
            run.run_id,
            {f"{p}_pinball": (run.score(f"{p}_pct_mae") or 0) / 3 for p in ("tune", "val")},
        )
    found = judged(made)
    assert (found.metric, found.outcome) == ("pinball", Outcome.PROMOTE)


def test_there_is_nothing_to_judge_without_a_sweep(tracker: Tracker) -> None:
    with pytest.raises((NotFound, TrackerError)):
        ask(tracker)


def test_every_variant_of_a_baseline_is_sought_for_the_benchmark(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    drift = tmp_path / "runs" / made.id("drift")
    for source in ("baseline: garman-klass", "by hand"):
        run = tracker.start_run(
            model="random-walk", hyperparams={}, sweep_id=made.sweep.sweep_id, is_baseline=True,
            fingerprints=made.sweep.fingerprints, source=source, config_hash=source,
        )  # fmt: skip
        out = tmp_path / "runs" / run.run_id
        shutil.copytree(drift, out)
        scores = {"tune_pct_mae": 0.1, "val_pct_mae": 2.0}
        tracker.finish_run(run.run_id, "complete", scores=scores, forecasts_path=out)
    names = list(ask(tracker).baselines)
    assert names[3] == "random-walk (garman-klass)"
    assert names[4].startswith("random-walk, random-walk_")
    assert judged(made).benchmark == "random-walk (garman-klass)"


def test_the_python_face_gives_the_same_verdict(tracker: Tracker, tmp_path: Path) -> None:
    import foresweep

    made = plant(tracker, tmp_path / "runs", POOR)
    assert foresweep.verdict(db=tmp_path / "sweeps.db") == judged(made)


def test_a_skill_too_good_for_prices_is_flagged(tracker: Tracker, tmp_path: Path) -> None:
    for tag, skill in (("a", 0.3), ("b", 0.05)):
        made = plant(tracker, tmp_path / tag, POOR | {"good": skill}, tag=tag)
        flagged = any("Look for a leak" in note for note in judged(made).notes)
        assert flagged is (skill > 0.15)


def test_json_of_a_verdict_on_runs_holds_no_nan(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    plain: dict[str, Any] = judged(made).as_json()
    assert json.loads(json.dumps(plain, allow_nan=False))["candidate"] == made.id("good")


def test_a_rule_that_never_trades_has_no_sharpe_ratio_and_the_verdict_stands(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD, idle=("good",))
    found = judged(made)
    assert found.outcome is Outcome.PROMOTE
    assert found.sharpe is not None
    assert (found.sharpe.annual, found.sharpe.deflated) == (None, None)
    assert found.sharpe.why_not == "undefined: the rule never trades on its forecasts"


def test_every_trial_of_the_lineage_lowers_the_deflated_sharpe_ratio(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    alone = judged(made).sharpe
    for number in range(50, 70):
        run = tracker.start_run(
            model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id, trial_number=number,
            fingerprints=made.sweep.fingerprints,
        )  # fmt: skip
        tracker.finish_run(run.run_id, "failed")
    again = judged(made).sharpe
    assert alone is not None
    assert again is not None
    assert (alone.num_trials, again.num_trials) == (9, 29)
    assert again.probabilistic == alone.probabilistic
    assert again.deflated < alone.deflated < alone.probabilistic
    assert again.luck > alone.luck


def test_one_sharpe_ratio_among_many_trials_does_not_say_what_luck_would_show(
    tracker: Tracker, tmp_path: Path
) -> None:
    found = judged(plant(tracker, tmp_path / "runs", GOOD, idle=tuple(POOR))).sharpe
    assert found is not None
    assert found.annual is not None
    assert found.deflated is None
    assert "too few trials" in str(found.why_not)


def test_returns_that_are_gone_are_said_to_be_and_the_verdict_stands(
    tracker: Tracker, tmp_path: Path
) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    (made.folder / made.id("good") / "val" / "returns.npz").unlink()
    found = judged(made)
    assert found.outcome is Outcome.PROMOTE
    assert found.sharpe is not None
    assert "not on this disk" in str(found.sharpe.why_not)


def test_returns_of_test_are_opened_by_nobody(tracker: Tracker, tmp_path: Path) -> None:
    made = plant(tracker, tmp_path / "runs", GOOD)
    with pytest.raises(UsageError, match="sealed"):
        open_returns(made.runs["good"], "test")
