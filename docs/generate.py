"""Write the reference pages from the code: `python docs/generate.py`. A test holds them equal."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import house
import licences
from typer.main import get_command

import foresweep
from foresweep import errors
from foresweep.cli.main import app
from foresweep.data.gate.report import RULES, severity_of
from foresweep.evaluation import trading
from foresweep.metrics import METRICS
from foresweep.models.base import hyperparameters
from foresweep.models.registry import BASELINES, FAMILIES, get_model
from foresweep.records import Run
from foresweep.reporting.report import md_table

DOCS = Path(__file__).parent
WRITTEN = "Written by `python docs/generate.py` from the code; a test holds it to it."


def metrics_page() -> str:
    lines = [
        "# Metrics",
        "",
        WRITTEN,
        "",
        "Models and naive forecasts are scored by these, on the same days and in real prices. In "
        "the formulas: y: close after the origin; m: median forecast; q: forecast quantile; b: "
        "close at the "
        "origin; s: volatility over the horizon known at the origin, in percent (100 sqrt(H v), v "
        "the EWMA 0.94 of squared returns, at least a quarter of its median over train); A: bars "
        "per year. The mean of a loss is taken over leads 1..H, then over the windows of each "
        "item, then over items: every item has equal weight, whatever its price and however "
        "many windows it has (it may end early, rows may be masked); shares, correlations and "
        "R2 are over all windows. A score's full name carries its part: `tune_pct_mae` steers, "
        "`val_pct_mae` "
        "ranks, `test_pct_mae` is sealed.",
        "",
        "A metric with a loss per window can be tested window by window; the others say something "
        "of all windows together. A score that is undefined (no position taken, no items ordered) "
        "is stored as failed to score, never as 0.",
        "",
    ]
    rows = [
        (
            f"`{m.name}`",
            m.unit,
            _direction(m.higher_is_better, m.target),
            "yes" if m.loss else "",
            m.formula,
            m.source,
        )
        for m in METRICS.values()
    ]
    lines += md_table(("metric", "unit", "better", "per window", "formula", "source"), rows)
    rule = inspect.cleandoc(trading.__doc__ or "").splitlines()
    lines += ["## The trading rule", "", "```", *rule, "```", ""]
    lines += [
        f"Stored scores pay {trading.COST_BPS:g} basis points. A Sharpe ratio within two standard "
        "errors of 0 is luck, and the best of many trials is luckier still: the verdict does not "
        "rest on it.",
        "",
    ]
    return _page(lines)


def _direction(higher: bool, target: float | None) -> str:
    if target is not None:
        return f"near {target}"
    return "higher" if higher else "lower"


def hyperparameters_page() -> str:
    lines = ["# Hyperparameters", "", WRITTEN, ""]
    lines += [
        "Every field changes the outcome or is refused: the contract suite trains with two values "
        "of each and compares. `training` fields matter to the training alone and are refused "
        "where nothing is trained; `view` fields also say what a model sees; `architecture` "
        "fields are fixed by pretrained weights; `inference` fields shape the forecast, not the "
        "weights; `calibration` is done to forecasts afterwards, fitted on tune.",
        "",
    ]
    for name in (*FAMILIES, *BASELINES):
        found = hyperparameters(get_model(name).Config)
        rows = [(f"`{h.name}`", f"`{h.default}`", h.unit, h.stage, h.doc) for h in found]
        lines += [f"## {name}", ""]
        lines += (
            md_table(("hyperparameter", "default", "unit", "stage", "meaning"), rows)
            if rows
            else ["None.", ""]
        )
    return _page(lines)


def errors_page() -> str:
    doc = inspect.getdoc(errors) or ""
    lines = [
        *("# Errors", "", WRITTEN, ""),
        "An error is one line that says what is wrong, where, and what to do. In Python it is one "
        "of these exceptions; on the command line the exit code tells them apart.",
        *("", "```", *doc.splitlines(), "```", ""),
    ]
    rows = [
        (f"`{name}`", str(kind.exit_code), (inspect.getdoc(kind) or "").splitlines()[0])
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.ForesweepError)
    ]
    return _page(lines + md_table(("error", ">exit code", "meaning"), rows))


def rules_page() -> str:
    lines = ["# The data gate", "", WRITTEN, ""]
    lines += [
        "Before anything is trained every price file is checked (`foresweep data check FOLDER`). A "
        "finding names the file, the row and one of the rules below. An `error` drops the item (or "
        "the file) and says so; a `warning` leaves the row out of everything (it is masked) or "
        "raises a doubt; a `note` informs. Nothing is ever repaired, interpolated or clipped.",
        "",
    ]
    rows = [(f"`{rule}`", severity_of(rule), text) for rule, text in RULES.items()]
    lines += md_table(("rule", "severity", "meaning"), rows)
    return _page([*lines, *_precision()])


def _precision() -> list[str]:
    """How well splits are told from moves: the table that the benchmark wrote into the page."""
    begin, end = "<!-- precision -->", "<!-- /precision -->"
    page = (DOCS / "data-gate.md").read_text()
    kept = page.partition(begin)[2].partition(end)[0]
    return [
        "## How precise it is",
        "",
        "What it calls the faults of five made panels of 1,000 items each, 750 days long: fat",
        "tails, quiet and stormy times, volume that follows the moves, crashes on days of news,",
        "spin-offs on quiet ones, a third of the splits with volumes that the vendor adjusted",
        "already. A split drops its item until an action is given; an event (a spin-off, a special",
        "dividend) and a move are kept, and each prints its line for an actions file. Moves below",
        "a fifth are not looked at, and an open and a close exchanged cannot be seen.",
        "`python benchmarks/gate_precision.py --write` writes this table.",
        "",
        "Each row is a fault that was planted, each column what the gate called it. What to see:",
        "nearly all splits are called splits, and very few crashes and jumps are.",
        "",
        begin,
        "",
        *kept.strip("\n").splitlines(),
        "",
        end,
    ]


def commands_page() -> str:
    lines = ["# Commands", "", WRITTEN, ""]
    for path, command in _commands(get_command(app), "foresweep"):
        lines += [f"## `{path}`", "", inspect.cleandoc(command.help or ""), ""]
        rows = [
            (", ".join(f"`{o}`" for o in p.opts) or p.name, getattr(p, "help", None) or "")
            for p in command.params
            if p.name not in ("help", "install_completion", "show_completion")
        ]
        lines += md_table(("option", "meaning"), rows) if rows else []
    return _page(lines)


def _commands(command: object, path: str) -> Iterator[tuple[str, object]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, sub in inner.items():
        yield from _commands(sub, f"{path} {name}")


def api_page() -> str:
    """The names of `foresweep.__all__`, by their signatures and docstrings."""
    lines = ["# API", "", WRITTEN, ""]
    lines += [
        "What `import foresweep as fs` offers. Most notebooks need no more than `fs.sweep`, "
        "`fs.load`, `fs.train`, `fs.verdict` and `fs.Tracker` ([from a notebook](notebook.md)). "
        "Errors are listed in [errors](errors.md).",
        "",
    ]
    names = sorted(foresweep.__all__, key=lambda n: inspect.isclass(getattr(foresweep, n)))
    for name in names:
        what = getattr(foresweep, name)
        lines += [f"## `{name}`", "", *_call(name, what), *inspect.getdoc(what).splitlines(), ""]
        if inspect.isclass(what):
            lines += [*members, ""] if (members := _members(what)) else []
    return _page(lines)


def _call(name: str, what: Any) -> list[str]:
    """How it is called; what only foresweep makes (records, errors) shows its fields instead."""
    if inspect.isclass(what) and issubclass(what, Exception):
        return []
    signature = inspect.signature(what)
    if getattr(what, "__module__", "") == Run.__module__ or what is foresweep.SweepResult:
        return ["Fields: " + ", ".join(f"`{n}`" for n in signature.parameters) + ".", ""]
    lines = [_argument(p, typed=True) for p in signature.parameters.values()]
    first_named = [p.kind is p.KEYWORD_ONLY for p in signature.parameters.values()]
    if True in first_named:
        lines.insert(first_named.index(True), "*")
    told = "" if inspect.isclass(what) else f" -> {signature.return_annotation}"
    body = "".join(f"\n    {line}," for line in lines)
    return ["```python", f"{name}({body}\n){told}" if lines else f"{name}(){told}", "```", ""]


def _members(kind: type) -> list[str]:
    lines = []
    for name, what in vars(kind).items():
        text = " ".join((inspect.getdoc(what) or "").partition("\n\n")[0].split())
        if name.startswith("_") or not text:
            continue
        if isinstance(what, property):
            lines.append(f"- `.{name}`: {text}")
        elif inspect.isfunction(what):
            asked = [p for p in inspect.signature(what).parameters.values() if p.name != "self"]
            shown = ", ".join(_argument(p) for p in asked)
            lines.append(f"- `.{name}({shown})`: {text}")
    return lines


def _argument(asked: inspect.Parameter, typed: bool = False) -> str:
    kind = f": {asked.annotation}" if typed else ""
    default = "" if asked.default is asked.empty else f"={asked.default!r}"
    return f"{asked.name}{kind}{default.replace('=', ' = ', 1) if kind else default}"


def _page(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


PAGES = {
    "metrics.md": metrics_page,
    "hyperparameters.md": hyperparameters_page,
    "errors.md": errors_page,
    "data-gate.md": rules_page,
    "commands.md": commands_page,
    "api.md": api_page,
    "house.svg": house.draw,
    "licences.md": licences.page,
}

if __name__ == "__main__":
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
