"""The report of a sweep in Markdown: models, best runs, hyperparameters, verdicts, failures."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foresweep.metrics import METRICS, split_score
from foresweep.records import TEST_GATE, Run, RunState, Sweep
from foresweep.reporting.blocks import Block, Facts, Page, Table, Words
from foresweep.selection.leaderboard import (
    SIGNIFICANT,
    Leaderboard,
    Row,
    leaderboard,
    still_learning,
)
from foresweep.selection.pareto import pareto
from foresweep.tracker.queries.impact import HyperparamImpact, impacts

if TYPE_CHECKING:
    from foresweep.tracker.tracker import Tracker

# Tables and numbers in Markdown.


def md_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; a heading that begins with '>' is a column of numbers."""
    bars = ["---:" if h.startswith(">") else "---" for h in headings]
    lines = [[h.removeprefix(">") for h in headings], bars, *rows]
    return ["| " + " | ".join(_cell(c) for c in line) + " |" for line in lines] + [""]


def page_lines(page: Page) -> Iterator[str]:
    """A page's tables under its headings, with the words and facts beside them; figures are in the
    .html alone."""
    yield from (f"## {_plain(page.title)}", "", _plain(page.lead), "")
    for section in page.sections:
        told = [line for block in section.blocks for line in _block_lines(block)]
        if told:
            yield from (f"### {section.title}", "", *told)


def _block_lines(block: Block) -> list[str]:
    if isinstance(block, Words):
        is_shown = block.text and block.kind != "log"
        return [_plain(block.text), ""] if is_shown else []
    if isinstance(block, Facts):
        return md_table(("", "is"), [(name, _plain(cell.text)) for name, cell in block.pairs])
    if not isinstance(block, Table):
        return []
    heads = [f"{'>' * c.is_number}{_plain(c.label) or 'marks'}" for c in block.columns]
    rows = [[_plain(cell.text) for cell in row] for row in block.rows]
    few = len(block.rows) - block.num_pinned
    is_some = block.num_all is not None and block.num_all > few
    more = [f"{few} of {block.num_all:,} shown.", ""] if is_some else []
    caption = [_plain(block.caption), ""] if block.caption else []
    return [*caption, *md_table(heads, rows), *more]


_MARKS = re.compile(r"([\\`*_\[\]<>#])")


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def num(value: float | None, digits: int = 4) -> str:
    """A number, or - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def pct(value: float | None) -> str:
    """A share as signed percent, or - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.2f} %"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


# A verdict on record, told in a report. What it saw of test is not on record, so not here.


def latest_verdict(
    verdicts: Iterable[Mapping[str, Any]], fingerprint: str
) -> Mapping[str, Any] | None:
    """The last verdict that was reached on runs of a val fingerprint, of rows oldest first."""
    reached = [v for v in verdicts if v["outcome"] and v["fingerprint"] == fingerprint]
    return reached[-1] if reached and fingerprint else None


WHOLE = ("candidate", "label", "reason", "judged_number", "num_trials", "against", "checks")
"""What every verdict on record says: one without them was written by another program."""


def what_is_wrong(row: Mapping[str, Any]) -> str:
    """Of a verdict on record that cannot be told: what it lacks, and what to do; else ""."""
    lacking = [name for name in WHOLE if name not in row["content"]]
    if not lacking:
        return ""
    return (
        f"The verdict on record of {row['judged_at']:%Y-%m-%d} lacks {', '.join(lacking)}: it is "
        f"not as foresweep writes one. Ask again: foresweep verdict"
    )


def verdict_section(row: Mapping[str, Any] | None) -> list[str]:
    """What it said, against whom, and the gates."""
    if row is None:
        return ["No verdict is on record: ask for one with `foresweep verdict`.", ""]
    if wrong := what_is_wrong(row):
        return ["## The verdict", "", wrong, ""]
    said: Mapping[str, Any] = row["content"]
    lines = [
        "## The verdict",
        "",
        f"**{str(said['outcome']).upper()}**: {said['reason']}. On {said['label']} (run "
        f"`{said['candidate']}`), {row['judged_at']:%Y-%m-%d}: judging {said['judged_number']} of "
        f"these items and days, {said['num_trials']} trials counted.",
        "",
    ]
    opponents = [
        (a["opponent"], pct(a["raw_skill"]), pct(a["scaled_skill"]), num(a["pvalue"]))
        for a in said["against"]
    ]
    lines += md_table(("against", ">raw skill on val", ">scaled skill", ">p (StepM)"), opponents)
    return lines + md_table(("gate", "asks", ">is", ">needed", ""), _gates(said["checks"]))


PASSED = {None: "not looked", True: "passed", False: "not passed"}


def _gates(checks: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            str(c["gate"]),
            str(c["name"]),
            "sealed" if c["gate"] == TEST_GATE else _value(c["value"]),
            "-" if c["threshold"] is None else f"{c['relation']} {_value(c['threshold'])}",
            PASSED[c["passed"]],
        )
        for c in checks
    ]


def _value(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"


# The report of a sweep in Markdown: models side by side, best runs, hyperparameters, failures.


TOP = 15
USED_TO = {"train": "learn", "tune": "steer", "val": "rank", "test": "confirm (sealed)"}
"""What each part of time is for."""
FEW_RUNS = 8


def sweep_report(tracker: Tracker, sweep: Sweep | None, metric: str) -> str:
    """The report of a sweep, None: of the runs logged by hand, with its last verdict. Raises
    UnknownName for the metric."""
    cells = sweep.fingerprints["val"] if sweep else ""
    verdict = latest_verdict(tracker.judgings.verdicts(), cells)
    runs = tracker.get_runs(fingerprint=cells)
    return markdown_report(runs, metric=metric, sweep=sweep, verdict=verdict)


def markdown_report(
    runs: Sequence[Run],
    *,
    metric: str,
    sweep: Sweep | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> str:
    """The report over runs of one fingerprint (or of none: logged by hand), with the `verdict` on
    record that was reached last (`latest_verdict`).

    No test score is in it. Raises UnknownName for the metric.
    """
    board = leaderboard(runs, metric=metric)
    parts = [
        ["# Sweep report", ""],
        _in_short(board),
        verdict_section(verdict) if sweep else [],
        _question(sweep) if sweep else [],
        _models(board),
        _best(board),
        _trade_offs(runs, sweep),
        _impact_section(board),
        _failures(runs),
        _how_to_read(board),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _in_short(board: Leaderboard) -> list[str]:
    best, leader = board.best, board.leader
    trained = [r for r in board.rows if r.place and not r.run.is_baseline]
    if best is None:
        return ["No trained run has a score yet; see the failures below.", ""]
    windows = (
        "scored on the same validation windows as the baselines"
        if board.fingerprint
        else "logged by hand, on windows that nobody can compare"
    )
    lines = [
        f"{len(trained)} trained runs were {windows}. "
        f"The best by `{board.metric}` is **{best.run.model_name}** "
        f"(run `{best.run.run_id}`): {num(best.score)} {_unit(board)}."
    ]
    if best.skill is None:
        lines.append(f"`{board.metric}` has no skill against last-value to show.")
    elif best.skill <= 0:
        lines.append(
            f"**Nothing beats naive**: that is {pct(best.skill)} against last-value "
            f"(tomorrow is today) on the same windows."
        )
    else:
        lines.append(
            f"Against last-value on the same windows its skill is {pct(best.skill)}. It is the "
            f"best of {board.num_trials}: a lead this size counts only if its p-value is below "
            f"{SIGNIFICANT / board.num_trials:.4f}, and it is {num(board.p_value(best))}."
        )
    if board.benchmark is not None:
        lines.append(
            f"The baseline to beat, the best on tune, is `{board.benchmark}`: against it the skill "
            f"is {pct(best.benchmark_skill)}."
        )
    if leader is not None and leader.run.is_baseline:
        lines.append(f"First of all, baselines included, is `{leader.run.model_name}`.")
    if told := still_learning(board):
        text, _, command = told.partition(": foresweep ")
        lines.append(f"{text}: `foresweep {command}`.")
    return [*lines, ""]


def _unit(board: Leaderboard) -> str:
    return METRICS[split_score(board.metric)[1]].unit


def _question(sweep: Sweep) -> list[str]:
    """What was asked, and how time was cut."""
    plan: Mapping[str, Any] = sweep.plan
    start = plan.get("pretrained") or f"from scratch, size {plan.get('size')}"
    lines = [
        "## The question",
        "",
        f"Sweep `{sweep.sweep_id}` ({sweep.state}): models {', '.join(sweep.models)}, mode "
        f"{sweep.mode}, horizon {sweep.horizon} bars, objective `{sweep.objective}` on tune, "
        f"{start}, seed {sweep.seed}, data {plan.get('data')}.",
        "",
    ]
    cut = plan.get("parts")
    if not cut:
        return lines
    rows = [
        (n, p["from"][:10], p["to"][:10], str(p["bars"]), str(p["origins"] or "-"),
         str(p["effective_origins"]) if p["origins"] else "-", USED_TO[n])
        for n, p in cut.items()
    ]  # fmt: skip
    return lines + md_table(
        ("part", "from", "to", ">bars", ">origins", ">effective origins", "used to"), rows
    )


def _models(board: Leaderboard) -> list[str]:
    """All models compared: each family and baseline by its best and its median run."""
    rows = []
    for name in dict.fromkeys(r.run.model_name for r in board.rows):
        mine = [r for r in board.rows if r.run.model_name == name]
        scored = [r for r in mine if r.place and r.score is not None]
        best = scored[0] if scored else None
        rows.append(
            (
                name + (" (baseline)" if mine[0].run.is_baseline else ""),
                str(len(mine)),
                str(sum(r.run.state == RunState.FAILED for r in mine)),
                num(best.score if best else None),
                num(statistics.median(r.score for r in scored) if scored else None),  # type: ignore[type-var]
                pct(best.skill if best else None),
                pct(best.benchmark_skill if best else None),
                _time(best.run) if best else "-",
            )
        )
    headings = (
        "model",
        ">runs",
        ">failed",
        f">best {board.metric}",
        ">median",
        ">skill",
        _versus(board),
        ">training",
    )
    return ["## All models compared", "", *md_table(headings, rows)]


def _versus(board: Leaderboard) -> str:
    """Heading of the skill against the benchmark."""
    return f">against {board.benchmark or 'the benchmark'}"


def _time(run: Run) -> str:
    seconds = run.training_time_seconds
    return "-" if seconds is None else f"{seconds:.1f} s"


def _best(board: Leaderboard) -> list[str]:
    part, _ = split_score(board.metric)
    headings = (
        ">#", "model", "config", f">{board.metric}", ">skill", _versus(board),
        ">p against naive", ">pinball", ">80 % band holds", ">r2", "run",
    )  # fmt: skip
    rows = [_best_row(r, part, board) for r in board.rows if r.place][:TOP]
    return ["## Best runs", "", *md_table(headings, rows)]


def _best_row(row: Row, part: str, board: Leaderboard) -> tuple[str, ...]:
    run = row.run
    return (
        str(row.place),
        run.model_name,
        run.source,
        num(row.score),
        pct(row.skill),
        pct(row.benchmark_skill),
        num(board.p_value(row), 3),
        num(run.score(f"{part}_pinball")),
        num(run.score(f"{part}_coverage_80"), 2),
        num(run.score(f"{part}_r2"), 3),
        f"`{run.run_id}`",
    )


def _trade_offs(runs: Sequence[Run], sweep: Sweep | None) -> list[str]:
    """The front of a sweep with several objectives; nothing where it has one."""
    found = pareto(runs, sweep.objective) if sweep else None
    if found is None:
        return []
    rows = [
        (p.run.model_name, p.run.source, *(_defined(s) for s in p.scores), p.word,
         f"`{p.run.run_id}`")
        for p in found.points[: len(found.front) + TOP]
    ]  # fmt: skip
    headings = ("model", "config", *(f">{m}" for m in found.metrics), "stands", "run")
    naive = zip(found.metrics, found.naive, strict=True)
    return [
        "## Trade-offs",
        "",
        f"On the front no other config is as good in every objective and better in one. The knee "
        f"lies furthest below the line between the ends of the front: from there on more of one "
        f"objective costs most of the others. last-value on the same windows: "
        f"{', '.join(f'`{m}` {_defined(s)}' for m, s in naive)}.",
        "",
        *md_table(headings, rows),
    ]


def _defined(score: float | None) -> str:
    return "undefined" if score is None else num(score)


def _impact_section(board: Leaderboard) -> list[str]:
    """What each hyperparameter did to the score, model by model."""
    lines = ["## Impact of each hyperparameter", ""]
    for name in dict.fromkeys(r.run.model_name for r in board.rows if not r.run.is_baseline):
        mine = [(r.run.hyperparams, r.score) for r in board.rows if r.run.model_name == name]
        scored = [(hyperparams, score) for hyperparams, score in mine if score is not None]
        varied = impacts(name, board.metric, scored)
        lines += [f"### {name} ({len(scored)} scored runs)", ""]
        if not varied:
            lines += ["Nothing varied between the scored runs of this model.", ""]
            continue
        if len(scored) < FEW_RUNS:
            lines += [
                f"With {len(scored)} runs these are observations, not effects: hyperparameters "
                f"moved together.",
                "",
            ]
        headings = ("hyperparameter", "value", ">runs", f">mean {board.metric}", ">sd", ">min")
        rows = [row for impact in varied for row in _impact_rows(impact)]
        lines += md_table((*headings, ">max", ">rank corr."), rows)
    return lines


def _impact_rows(impact: HyperparamImpact) -> list[tuple[str, ...]]:
    return [
        (
            "" if k else impact.hyperparam,
            value.label,
            str(value.count),
            *(num(x) for x in (value.mean, value.spread, value.lowest, value.highest)),
            "" if k else num(impact.rank_correlation, 2),
        )
        for k, value in enumerate(impact.values)
    ]


def _failures(runs: Sequence[Run]) -> list[str]:
    """Runs that did not complete, with their cause."""
    bad = [r for r in runs if r.state not in (RunState.COMPLETE, RunState.RUNNING)]
    if not bad:
        return []
    rows = [(f"`{r.run_id}`", r.model_name, r.source, r.state.value, cause(r)) for r in bad]
    return [
        "## Runs that did not complete",
        "",
        *md_table(("run", "model", "config", "state", "cause"), rows),
    ]


def cause(run: Run) -> str:
    """The last line of what is known of why a run did not complete."""
    waits = run.notes if run.state is RunState.WAITING else None
    lines = (run.error or waits or "no cause on record").strip().splitlines()
    return lines[-1][:300]


def _how_to_read(board: Leaderboard) -> list[str]:
    part, bare = split_score(board.metric)
    used = dict.fromkeys((bare, "skill", "pinball", "coverage_80", "r2", "dm_pvalue_vs_naive"))
    return [
        "## How to read this",
        "",
        f"All scores are of part `{part}`, on equal windows (fingerprint "
        f"`{board.fingerprint[:12] or 'none: logged by hand'}`). The sealed test part is in no "
        f"table.",
        "",
        *[f"- `{m}` ({METRICS[m].unit}): {METRICS[m].formula}" for m in used],
    ]
