"""The report as one file: everything on it, nothing sealed, nothing asked of anybody."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from foresweep.errors import MissingExtra, UsageError
from foresweep.records import TEST_GATE
from foresweep.reporting import render
from foresweep.reporting.blocks import Cell, Column, Facts, Table, Words
from foresweep.reporting.pages import models_page
from foresweep.reporting.render import report_html, report_markdown, spec_json
from foresweep.reporting.report import verdict_section
from foresweep.reporting.runpage import compare_page, run_page
from foresweep.reporting.sweeppage import leaderboard_table, sweep_page
from foresweep.reporting.verdictpage import _verdict, share_held, verdict_page
from foresweep.reporting.views import Asked, Links, Site, SweepView
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant, spoil_test

SKILLS = {"good": 0.12, "fair": 0.02, "none": 0.0, "bad": -0.1}
HYPER = {
    name: {"lr": 10.0**-k, "loss": ["huber", "mse"][k % 2]} for k, name in enumerate(SKILLS, 2)
}
MAX_BYTES = 7 * 1024 * 1024


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("pages")
    with Tracker(folder / "sweeps.db") as tracker:
        found = plant(tracker, folder / "runs", SKILLS, hyperparams=HYPER, items=4)
        failed = tracker.start_run(
            model="toto",
            hyperparams={"lr": 1.0},
            sweep_id=found.sweep.sweep_id,
            source="quick: bad",
        )
        tracker.finish_run(failed.run_id, "failed", error="Traceback\nValueError: loss is <nan>")
        tracker.add_note(found.id("good"), "look <script>alert(1)</script>", who="me")
        tracker.finish_sweep(found.sweep.sweep_id, "complete")
        spoil_test(found)
        yield found


@pytest.fixture
def site(made: Planted) -> Site:
    return Site(made.tracker, made.folder, Links(is_live=True))


@pytest.fixture(scope="module")
def html(made: Planted) -> str:
    site = Site(made.tracker, made.folder, Links(is_live=False))
    return report_html(site, SweepView(site, made.tracker.get_sweep()))


def test_the_report_is_one_file_of_at_most_seven_mebibytes(html: str) -> None:
    assert len(html.encode()) < MAX_BYTES
    own = html.replace(render.static("plotly.js").decode(), "")
    assert not re.search(r'\b(?:src|href)="(?!#)', own)
    assert "url(" not in own
    assert "@import" not in own


def test_the_one_file_may_ask_nobody_for_anything(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;")
    assert "unsafe-eval" not in policy[1]
    assert "connect-src" not in policy[1]


def test_every_figure_of_the_report_has_its_data(html: str) -> None:
    asked = set(re.findall(r'data-figure="([^"]+)"', html))
    specs = re.findall(r'<script type="application/json" id="spec-([^"]+)">(.*?)</script>', html)
    assert asked == {name for name, _ in specs}
    assert len(asked) >= 20
    for _, spec in specs:
        assert json.loads(spec)["layout"]


def test_no_score_of_test_is_on_any_page(html: str, made: Planted) -> None:
    own = html.replace(render.static("plotly.js").decode(), "")
    assert not re.search(r"test_(pct_mae|skill|r2|sharpe|naive)", own)
    for run_id in (made.id("good"), made.id("last-value")):
        scores = made.tracker.reveal_test(run_id, why="to know what must not be shown")
        for name, value in scores.items():
            if abs(value) > 0.01:  # 0.001 stands anywhere
                assert f"{value:.4f}" not in own, name


def test_baselines_stand_on_top_with_the_benchmark_first(site: Site, made: Planted) -> None:
    table = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked())
    assert table.num_pinned == 3
    assert table.rows[0][1].text == "random-walk (the benchmark)"
    assert {r[1].plain for r in table.rows[:3]} == {"random-walk", "last-value", "drift"}
    scores = [r[3].value for r in table.rows[3:]]
    assert scores == sorted(scores)
    assert len(scores) == len(SKILLS)


def test_skill_stands_with_its_interval_and_a_mark_for_what_cannot_be_told_apart(
    site: Site, made: Planted
) -> None:
    table = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked())
    column = {c.label: k for k, c in enumerate(table.columns)}
    good = next(r for r in table.rows if r[2].text == "quick: good")
    low, high = (float(x) for x in str(good[column["90 % interval"]].value).split())
    assert low < good[column["skill"]].value < high
    assert "★" in good[7].text
    bad = next(r for r in table.rows if r[2].text == "quick: bad")
    assert bad[7].text == ""


def test_a_leaderboard_is_filtered_and_sorted_by_the_database(site: Site, made: Planted) -> None:
    view = site.sweep(made.sweep.sweep_id)
    found = leaderboard_table(view, Asked(where="lr < 1e-3")).rows[3:]
    assert {r[2].text for r in found} == {"quick: none", "quick: bad"}
    slow = leaderboard_table(view, Asked(sort="training_time_seconds:desc")).rows[3:]
    assert [r[2].text for r in slow][:2] == ["quick: bad", "quick: none"]


def test_a_page_at_a_time_says_of_how_many(site: Site, made: Planted) -> None:
    first = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked(size=2))
    second = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked(size=2, page=2))
    assert [t.num_all for t in (first, second)] == [4, 4]
    whole = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked())
    assert [r[2] for r in (*first.rows[3:], *second.rows[3:])] == [r[2] for r in whole.rows[3:]]


def test_many_runs_are_ranked_by_the_index_as_by_the_whole_table(
    site: Site, made: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked())
    monkeypatch.setattr("foresweep.reporting.views.FEW", 1)
    monkeypatch.setattr("foresweep.reporting.views.MARKED", 1)
    paged = leaderboard_table(site.sweep(made.sweep.sweep_id), Asked(size=3, page=1))
    shown = [[c.text for c in r[:7]] for r in paged.rows]
    assert shown == [[c.text for c in r[:7]] for r in whole.rows[:6]]
    assert paged.num_all == len(SKILLS)


def test_failed_runs_stand_with_their_cause_as_text(html: str) -> None:
    assert "ValueError: loss is &lt;nan&gt;" in html


def test_a_run_shows_where_it_wins_what_differs_and_what_is_said_of_it(
    site: Site, made: Planted
) -> None:
    page = run_page(site, made.tracker.get_run(made.id("good")), Asked())
    assert {"by-lead", "by-item", "by-regime", "over-time"} <= set(page.figures())
    for name in ("by-lead", "by-item", "over-time"):
        assert page.figures()[name].build()["data"]
    assert any("<script>" in str(b) for s in page.sections for b in s.blocks if s.id == "notes")


def test_two_runs_are_compared_by_what_differs_and_by_paired_losses(
    site: Site, made: Planted
) -> None:
    runs = [made.tracker.get_run(made.id(n)) for n in ("good", "bad")]
    page = compare_page(site, runs, Asked())
    names = [r[0].text for r in page.tables()["differences"].rows]
    assert {"lr", "loss"} >= set(names) - {"model_name", "state", "source", "seed"}
    assert page.tables()["paired"].rows[0][3].value < 0.01  # one-sided: good is better
    spec = page.figures()["paired-1"].build()
    assert spec["data"][1]["y"][-1] > 0


def test_a_filter_that_cannot_be_read_is_said_and_no_failure(site: Site, made: Planted) -> None:
    from foresweep.errors import UsageError

    with pytest.raises(UsageError, match="lr"):
        sweep_page(site.sweep(made.sweep.sweep_id), Asked(where="lr <"))
    with pytest.raises(UsageError, match="sealed"):
        sweep_page(site.sweep(made.sweep.sweep_id), Asked(sort="test_pct_mae"))


def test_what_stands_in_a_script_element_cannot_leave_it() -> None:
    text = spec_json({"layout": {"title": "</script><script>alert(1)</script>&"}})
    assert "<" not in text
    assert json.loads(text)["layout"]["title"].startswith("</script>")


def test_a_table_as_csv_gives_no_spreadsheet_a_formula() -> None:
    table = Table(
        name="t", columns=(Column("a"), Column("b")), rows=((Cell("=1+1"), Cell("x", -2.5)),)
    )
    assert table.as_csv() == "a,b\n'=1+1,-2.5\n"
    assert json.loads(table.as_json())["rows"] == [{"a": "=1+1", "b": -2.5}]


def test_the_markdown_holds_every_table_of_the_html_and_renders(made: Planted, html: str) -> None:
    site = Site(made.tracker, made.folder, Links(is_live=False))
    text = report_markdown(site, SweepView(site, made.tracker.get_sweep()))
    own = html.replace(render.static("plotly.js").decode(), "")
    heads = re.findall(r"<thead>.*?</thead>", own, flags=re.S)
    assert len(heads) >= 20
    lines = {line.replace("\\", "") for line in text.splitlines()}
    for head, body in zip(heads, re.findall(r"<tbody>.*?</tbody>", own, flags=re.S), strict=True):
        for row in (head, *re.findall("<tr.*?</tr>", body, flags=re.S)):
            cells = re.findall("<t[hd]\\b.*?</t[hd]>", row, flags=re.S)
            texts = [" ".join(unescape(re.sub("<[^>]+>", "", c)).split()) for c in cells]
            assert f"| {' | '.join(texts)} |" in lines
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert rendered.count("<table>") >= len(heads)
    assert "<script" not in rendered
    assert "<nan>" not in rendered


def test_without_the_extra_html_says_what_to_install_and_markdown_is_written(
    made: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from foresweep.cli.main import main

    monkeypatch.setitem(sys.modules, "jinja2", None)
    render.templates.cache_clear()
    site = Site(made.tracker, made.folder, Links(is_live=False))
    with pytest.raises(MissingExtra, match=r"pip install 'foresweep\[web\]'"):
        report_html(site, SweepView(site, made.tracker.get_sweep()))
    db = str(made.tracker.store.path)
    main_md = tmp_path / "report.md"
    with pytest.raises(SystemExit) as ended:
        main(["report", "-o", str(main_md), "--db", db])
    assert ended.value.code == 0
    assert "All models compared" in main_md.read_text()
    render.templates.cache_clear()


def test_models_stand_side_by_side_by_each_loss_and_at_each_horizon(
    made: Planted, site: Site
) -> None:
    view = site.sweep(made.sweep.sweep_id)
    own, pinball = (
        models_page(view, Asked(metric=m)).tables()["models"] for m in ("", "val_pinball")
    )
    assert own.columns[3].label == "best val_pct_mae"
    assert pinball.columns[3].label == "best val_pinball"
    assert own.rows[0][0].text == "toto"
    with pytest.raises(UsageError, match="val_pct_mae"):
        models_page(view, Asked(metric="test_pct_mae"))
    family = [replace(made.sweep, horizon=h, sweep_id=f"s{h}") for h in (1, 20)]
    view.__dict__["family"] = [made.sweep, *family]
    page = models_page(view, Asked())
    assert [s.title for s in page.sections] == ["5 bars ahead", "1 bars ahead", "20 bars ahead"]
    assert {"models", "models-1", "models-20"} == set(page.tables())


def test_only_what_differs_between_runs_is_compared(made: Planted, site: Site) -> None:
    runs = [made.runs[n] for n in ("good", "none")]
    table = compare_page(site, runs, Asked()).tables()["differences"]
    assert [r[0].text for r in table.rows] == ["source", "lr"]


def test_what_a_verdict_saw_of_test_would_be_shown_by_no_page(made: Planted, site: Site) -> None:
    """The record holds none of it; were it there, no page and no report would tell."""
    (verdict,) = verdict_on_runs(made.tracker, [made.id("none")])
    said = json.loads(json.dumps(verdict.as_json()))
    said["checks"].append({"gate": TEST_GATE, "name": "agrees", "value": 0.1234, "threshold": None,
                           "relation": "", "passed": True})  # fmt: skip
    said["targets"].append({"name": "test_r2", "value": 0.4321, "target": "> 0", "met": True,
                            "comment": ""})  # fmt: skip
    row = {"content": said, "judged_at": datetime(2026, 1, 2)}
    pages = list(_verdict(site.sweep(made.sweep.sweep_id), row))
    cells = {c.text for s in pages for b in s.blocks if isinstance(b, Table) for r in b.rows
             for c in r}  # fmt: skip
    assert "sealed" in cells
    assert not {"0.1234", "0.4321", "test_r2"} & cells
    text = "\n".join(verdict_section(row))
    assert "| agrees | sealed | - | passed |" in text
    assert "0.1234" not in text
    with pytest.raises(UsageError, match="on no page"):
        site.outcome(made.tracker.get_run(made.id("good")), "test")


def test_a_verdict_on_record_that_lacks_its_candidate_is_said_and_no_error(
    made: Planted, site: Site
) -> None:
    verdict_on_runs(made.tracker, [made.id("bad")])
    view = site.sweep(made.sweep.sweep_id)
    assert view.verdict is not None
    row = {**view.verdict, "content": {**view.verdict["content"]}}
    del row["content"]["candidate"]
    (section,) = _verdict(view, row)
    (words,) = section.blocks
    assert isinstance(words, Words)
    assert "lacks candidate" in words.text
    assert "lacks candidate" in "\n".join(verdict_section(row))


def test_a_verdict_shows_coverage_beside_skill(made: Planted, site: Site) -> None:
    verdict_on_runs(made.tracker, [made.id("bad")])
    page = verdict_page(site.sweep(made.sweep.sweep_id))
    tiles = dict(
        p for s in page.sections[:1] for b in s.blocks if isinstance(b, Facts) for p in b.pairs
    )
    assert tiles["raw skill against random-walk"].value < 0
    assert tiles["80 % band holds"].text == "–"  # the planted runs have no such score
    assert share_held(0.68).mark == "warn"
    assert share_held(0.78).text == "78 %"
    assert tiles["smallest that could be proved"].text
