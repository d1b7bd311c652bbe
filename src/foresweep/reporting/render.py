"""Pages as HTML: live ones, and all of them in one file that opens offline and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from foresweep.data.files import name_as_text
from foresweep.errors import ForesweepError, MissingExtra
from foresweep.reporting import overview, pages, verdictpage
from foresweep.reporting.blocks import Figure, Page, Spec
from foresweep.reporting.report import page_lines, sweep_report
from foresweep.reporting.runpage import run_page
from foresweep.reporting.sweeppage import sweep_page
from foresweep.reporting.views import Asked, Links, Site, SweepView
from foresweep.web import look

if TYPE_CHECKING:
    from jinja2 import Environment

EXTRA = "web"
BEST_RUNS = 3
"""Runs that have a section of their own in one file."""
IN_ONE_FILE = 200
"""Rows of a leaderboard in one file."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a template asks beside the page itself."""

    is_live: bool
    path: str = ""
    base: str = ""  # the page's address, below which its tables and figures lie
    asked: Asked = field(default_factory=Asked)
    csrf: str = ""
    query: str = ""  # as it was asked: a figure is of the same item, origin, runs

    def figure_address(self, name: str) -> str:
        return f"{self.base}/figure/{name}" + (f"?{self.query}" if self.query else "")

    def table_address(self, name: str, ending: str) -> str:
        return f"{self.base}/table/{name}.{ending}" + (f"?{self.query}" if self.query else "")


@cache
def templates() -> Environment:
    """The templates, everything escaped. Raises MissingExtra."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra("jinja2", EXTRA) from error
    return Environment(
        loader=PackageLoader("foresweep.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def static(name: str) -> bytes:
    """A file of ours that pages use, or plotly's own bundle. Raises MissingExtra, KeyError."""
    if name == "plotly.js":
        try:
            file = resources.files("plotly") / "package_data" / "plotly.min.js"
        except ImportError as error:
            raise MissingExtra("plotly", EXTRA) from error
        return file.read_bytes()
    if name == "pages.js":
        return (resources.files("foresweep.reporting") / "static" / name).read_bytes()
    return look(name)


@cache
def _unstyled() -> tuple[str, ...]:
    """Ids under which plotly's bundle looks for the styles of its maps before it writes them into
    the page: where an element has one, it writes none, and the policy need not allow it."""
    found = re.findall(r'getElementById\("([0-9a-f]{64})"\)', static("plotly.js").decode())
    return tuple(dict.fromkeys(found))


def live_html(
    page: Page, context: Context, *, menu: Sequence[tuple[str, str, bool]], can_write: bool
) -> str:
    """One page as the dashboard shows it."""
    return name_as_text(
        templates()
        .get_template("live.html")
        .render(page=page, ctx=context, menu=menu, can_write=can_write, unstyled=_unstyled())
    )


def spec_json(spec: Spec) -> str:
    """A figure as JSON that may stand inside a script element."""
    text = json.dumps(spec, allow_nan=False, separators=(",", ":"), default=float)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def built(figure: Figure) -> Spec:
    """A figure's data and layout; one that cannot be drawn says why in its middle."""
    try:
        return figure.build()
    except ForesweepError as error:
        words = {"text": str(error)[:200], "showarrow": False, "x": 0.5, "y": 0.5}
        axis = {"visible": False}
        at = {"xref": "paper", "yref": "paper"}
        return {"data": [], "layout": {"annotations": [words | at], "xaxis": axis, "yaxis": axis}}


def report_pages(site: Site, view: SweepView) -> list[Page]:
    """What a report of a sweep holds: its pages and those of its best runs."""
    asked = Asked(size=IN_ONE_FILE)
    board = view.plain_board
    best = [r.run for r in board.rows if r.place and not r.run.is_baseline][:BEST_RUNS]
    site.links = Links(False, view.sweep.sweep_id, frozenset(r.run_id for r in best))
    return [
        overview.overview(site, asked),
        sweep_page(view, asked),
        pages.models_page(view, asked),
        *(run_page(site, run, asked) for run in best),
        verdictpage.verdict_page(view),
        pages.data_page(view),
    ]


def report_markdown(site: Site, view: SweepView) -> str:
    """The report in Markdown: what it came to in words, then every table of the pages."""
    text = sweep_report(view.tracker, view.sweep, view.metric)
    lines = [line for page in report_pages(site, view) for line in page_lines(page)]
    return f"{text}\n# Every table of the pages\n\n" + "\n".join(lines).rstrip() + "\n"


def report_html(site: Site, view: SweepView) -> str:
    """Everything of a sweep in one file: its pages, its best runs, each figure with its data."""
    shown = report_pages(site, view)
    specs = {
        f"{page.id}-{name}": spec_json(built(figure))
        for page in shown
        for name, figure in page.figures().items()
    }
    script, bundle = static("pages.js").decode(), static("plotly.js").decode()
    return name_as_text(
        templates()
        .get_template("report.html")
        .render(
            title=f"foresweep report: {view.sweep.name or view.sweep.sweep_id}",
            lead=f"{', '.join(view.sweep.models)}, {view.sweep.horizon} bars ahead, data "
            f"{view.sweep.plan.get('data', 'by hand')}. No test score is in this file.",
            pages=shown,
            ctx=Context(is_live=False),
            figures=specs,
            css=static("pages.css").decode(),
            script=script,
            plotly=bundle,
            policy=_policy((bundle, script)),
        )
    )


def _policy(scripts: Sequence[str]) -> str:
    """What the one file may do: run these scripts, and ask nobody for anything."""
    allowed = " ".join(f"'{_digest(s)}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_machine(error: Exception) -> Mapping[str, Any]:
    """An error as a live page's script reads it."""
    return {"error": " ".join(str(error).split())}
