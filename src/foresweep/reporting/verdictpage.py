"""The page of a verdict, as far as it may be told: what it saw of test is not on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from foresweep.errors import NotFound
from foresweep.records import TEST_GATE, is_sealed
from foresweep.reporting import figures
from foresweep.reporting.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Figure,
    Page,
    Section,
    Table,
    Words,
    interval,
    number,
    share,
    shown,
    when,
)
from foresweep.reporting.figures import Bar
from foresweep.reporting.report import PASSED, what_is_wrong
from foresweep.reporting.views import SweepView, above
from foresweep.selection.verdict import surrogates
from foresweep.selection.verdict.declared import in_words


def verdict_page(view: SweepView) -> Page:
    row = view.verdict
    return Page(
        id="verdict",
        title="Verdict",
        lead=f"sweep {view.sweep.sweep_id}, {view.sweep.horizon} bars ahead",
        sections=tuple(_verdict(view, row)),
        crumbs=above(view),
    )


def _verdict(view: SweepView, row: Mapping[str, Any] | None) -> Iterator[Section]:
    if row is None:
        ask = f"foresweep verdict --sweep {view.sweep.sweep_id}"
        words = "No verdict is on record: nobody has asked yet whether the best is luck. Ask with: "
        yield Section("verdict", "Not asked yet", (Words(words + ask, "empty"),))
        return
    if wrong := what_is_wrong(row):
        yield Section("verdict", "It cannot be told", (Words(wrong, "bad"),))
        return
    said: Mapping[str, Any] = row["content"]
    opening: list[Block] = [
        *answer(said),
        Facts(
            (
                ("candidate", run_link_of(view, str(said["candidate"]), str(said["label"]))),
                ("judged", when(row["judged_at"])),
                ("against", Cell(f"{said['benchmark']}, {said['benchmark_why']}")),
                ("trials counted", shown(said["num_trials"])),
                ("edition of the rules", shown(said.get("edition", 1))),
                ("judging number", shown(said["judged_number"])),
                ("look at the test", shown(said["look_number"] or "not looked")),
            )
        ),
    ]
    opening.append(_beside_skill(view, said))
    yield Section("verdict", "What it says", tuple(opening))
    yield Section("gates", "Gate by gate", (gates_table(said), against_table(said)))
    yield Section("luck", "Luck and power", tuple(luck_blocks(said)))
    yield Section("targets", "Targets and notes", tuple(_targets(view, said)))
    yield Section("looks", "Every look at the test", (_looks(view),))


def _beside_skill(view: SweepView, said: Mapping[str, Any]) -> Facts:
    """The candidate's skill, and whether its bands are honest: one without the other misleads."""
    ours = said["against"][0]
    try:
        run = view.tracker.get_run(str(said["candidate"]))
        held = run.score(f"{view.part}_coverage_80")
    except NotFound:  # judged in another database
        held = None
    return Facts(
        (
            (f"raw skill against {ours['opponent']}", share(ours["raw_skill"], is_marked=True)),
            ("scaled skill", share(ours["scaled_skill"], is_marked=True)),
            ("its bounds", interval(ours["lower_skill"], ours["upper_skill"])),
            ("p (StepM)", number(ours["pvalue"], 3)),
            ("80 % band holds", share_held(held)),
            ("smallest that could be proved", share(said["detectable_skill"])),
        ),
        kind="tiles",
    )


def share_held(held: float | None) -> Cell:
    """Of the closes, how many the 80 % band held; far from 80 % is marked."""
    if held is None:
        return Cell("–", "", mark="faint")
    return Cell(f"{100 * held:.0f} %", held, mark="warn" if abs(held - 0.8) > 0.1 else "")


def answer(said: Mapping[str, Any]) -> Iterator[Block]:
    """The outcome with its reason, and what it means for who has to decide."""
    outcome = str(said["outcome"])
    kind = {"promote": "good", "naive wins": "bad"}.get(outcome, "warn")
    yield Words(f"{said.get('answer', outcome.upper())}: {said['reason']}.", kind)
    yield Words(MEANING.get(outcome, ""))


MEANING = {
    "promote": "The candidate is better than the naive forecasts by more than the luck of picking "
    "explains, on data that ranked it and on data that nobody had seen.",
    "naive wins": "No trial is better than the naive forecast, and there were data enough to see "
    "it if one were by a useful amount. Use the naive forecast.",
    "hold": "What is there does not suffice to use the candidate. The first gate that is not "
    "passed says what is missing.",
}


def run_link_of(view: SweepView, run_id: str, label: str) -> Cell:
    return Cell(f"{label} ({run_id})", href=view.site.links.to("run", run_id))


GATES = {
    0: "Is there evidence enough to say anything?",
    1: "Is it better on val, all trials counted?",
    2: "Would the way it was picked lose out of sample?",
    3: "Can the weights have seen the test period, and is the evidence whole?",
    4: "Does the sealed test agree?",
}


def gates_table(said: Mapping[str, Any]) -> Table:
    """Each gate with its number."""
    rows = []
    for check in said["checks"]:
        passed = PASSED[check["passed"]]
        mark = {None: "faint", True: "good", False: "bad"}[check["passed"]]
        is_hidden = check["gate"] == TEST_GATE
        value = "sealed" if is_hidden and check["passed"] is not None else _value(check["value"])
        needed = "–" if check["threshold"] is None else (
            f"{check['relation']} {_value(check['threshold'])}"
        )  # fmt: skip
        rows.append(
            (
                Cell(str(check["gate"])),
                Cell(GATES.get(check["gate"], "")),
                Cell(str(check["name"])),
                Cell(value),
                Cell(needed),
                Cell(passed, mark=mark),
            )
        )
    return Table(
        name="gates",
        columns=(
            Column("gate"),
            Column("question"),
            Column("asks"),
            Column("is", is_number=True),
            Column("needed", is_number=True),
            Column("passed"),
        ),
        rows=tuple(rows),
    )


def _value(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def against_table(said: Mapping[str, Any]) -> Table:
    """Skill against each opponent, with its bounds."""
    return Table(
        name="against",
        columns=(
            Column("against"),
            Column("raw skill on val", is_number=True),
            Column("scaled skill", is_number=True),
            Column("at least", is_number=True),
            Column("at most", is_number=True),
            Column("p (StepM)", is_number=True),
        ),
        rows=tuple(
            (
                Cell(str(a["opponent"])),
                share(a["raw_skill"], is_marked=True),
                share(a["scaled_skill"], is_marked=True),
                share(a["lower_skill"]),
                share(a["upper_skill"]),
                number(a["pvalue"]),
            )
            for a in said["against"]
        ),
        caption="Bounds hold for all trials at once, 95 % on each side; scaled: in units of "
        "volatility.",
    )


def luck_blocks(said: Mapping[str, Any]) -> Iterator[Block]:
    """The candidate beside what luck alone shows, and the smallest skill that could be proved."""
    ours = said["against"][0]
    low, high = ours["lower_skill"], ours["upper_skill"]
    bars = [
        Bar(f"ours: {said['label']}", ours["scaled_skill"], low, high),
        Bar(f"best of {said['num_trials']} without skill", said["expected_best_skill"]),
        Bar("the best, less the luck of picking", said["debiased_skill"]),
        Bar("smallest that could be proved", said["detectable_skill"]),
    ]  # fmt: skip
    yield Figure(
        name="luck",
        title="Ours beside luck",
        alt="Scaled skill of the candidate beside the best of as many skill-free trials.",
        build=partial(figures.luck, bars),
        height=240,
        note=f"{said['num_trials']} trials, as many as {said['num_effective_trials']:.1f} "
        f"independent ones.",
    )
    yield Facts(
        (
            ("best of as many without skill", share(said["expected_best_skill"])),
            ("smallest skill that could be proved", share(said["detectable_skill"])),
            ("less the luck of picking", share(said["debiased_skill"])),
            ("probability of loss (CSCV)", number(said["probability_of_loss"], 2)),
            ("probability of overfitting", number(said["pbo"], 2)),
            ("overtuning", number(said["overtuning"])),
        ),
        kind="tiles",
    )


def _targets(view: SweepView, said: Mapping[str, Any]) -> Iterator[Block]:
    yield Table(
        name="targets",
        columns=(
            Column("target"),
            Column("is", is_number=True),
            Column("wished"),
            Column("met"),
            Column("how much that means"),
        ),
        rows=tuple(
            (
                Cell(str(t["name"])),
                Cell("sealed") if is_sealed(str(t["name"])) else number(t["value"]),
                Cell(str(t["target"])),
                Cell({None: "–", True: "yes", False: "no"}[t["met"]]),
                Cell(str(t["comment"])),
            )
            for t in said["targets"]
            if not is_sealed(str(t["name"]))
        ),
    )
    for told in said.get("surrogates", ()):
        yield Words(surrogates.in_words(told), "bad" if told["alarm"] else "")
    if declared := said.get("declared"):
        yield Words(in_words(declared), "warn" if declared["departures"] else "good")
    for note in said["notes"]:
        yield Words(str(note))


def _looks(view: SweepView) -> Block:
    looks = [
        look
        for look in view.tracker.judgings.test_looks()
        if look.get("panel_hash") == view.sweep.panel_hash
    ]
    if not looks:
        return Words("Nobody has looked at the test part of these data.", "good")
    return Table(
        name="looks",
        columns=(Column("run"), Column("when"), Column("who"), Column("why"), Column("number")),
        rows=tuple(
            (
                Cell(str(look["run_id"]), mark="code"),
                when(look["looked_at"]),
                Cell(str(look["who"])),
                Cell(str(look["why"])),
                shown(look.get("number")),
            )
            for look in looks
        ),
        caption="No page shows what was seen.",
    )
