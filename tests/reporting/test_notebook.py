"""What a notebook draws of a record: from the pages' own blocks, no script, and `repr` beside."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.evaluation.predict import PanelForecast
from foresweep.models.base import Forecast
from foresweep.records import Target
from foresweep.reporting import render
from foresweep.reporting.still import svg_of
from foresweep.selection.leaderboard import leaderboard
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant, spoil_test

HYPER = {"good": {"lr": 0.1, "note": "<script>alert(1)</script>"}, "fair": {"lr": 0.2}}
LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("notebook")
    with Tracker(folder / "sweeps.db") as tracker:
        yield plant(tracker, folder / "runs", {"good": 0.1, "fair": 0.0}, hyperparams=HYPER,
                    items=4)  # fmt: skip


def forecast(num_items: int = 2, *, recent: bool = True) -> PanelForecast:
    days = np.arange("2026-03-02", "2026-03-23", dtype="datetime64[D]").astype("datetime64[ns]")
    past, ahead = days[:16], days[16:]
    close = 100 + np.arange(16.0)
    bars = np.stack([close, close + 2, close - 2, close + 1], axis=1)
    values = 115 + np.arange(5.0)[:, None] + np.array([-3.0, 0, 3])
    return PanelForecast(
        items=tuple(f"<b>X{n}</b>" for n in range(num_items)),
        origins=np.full(num_items, past[-1]),
        last_close=np.full(num_items, 116.0),
        times=np.tile(ahead, (num_items, 1)),
        forecast=Forecast(np.tile(values, (num_items, 1, 1)), LEVELS),
        model="toto",
        card={},
        recent=((past, bars),) * num_items if recent else (),
    )


def html_of(value: Any) -> str:
    found: str = value._repr_html_()
    assert "<script" not in found
    assert " on" not in re.sub(r'"[^"]*"|>[^<]*<', "", found)
    return found


def test_a_run_a_sweep_and_a_leaderboard_are_drawn_with_plain_repr_beside(made: Planted) -> None:
    run = made.runs["good"]
    text = html_of(run)
    assert run.run_id in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert f"{run.score('val_pct_mae'):.4f}" in text
    assert repr(run).startswith("Run(run_id=")
    said = html_of(made.sweep)
    assert made.sweep.sweep_id in said
    assert "effective origins" in said
    board = leaderboard(made.tracker.get_runs(), metric="val_pct_mae")
    table = html_of(board).replace("<wbr>", "")  # where a long id may break
    assert table.index("random-walk") < table.index(made.id("good"))
    assert table.count('class="pinned"') == 3
    assert repr(board).startswith("Leaderboard(metric=")


def test_a_verdict_is_drawn_with_its_gates_and_its_luck_and_never_with_test(
    made: Planted,
) -> None:
    (judged,) = verdict_on_runs(made.tracker, [made.id("good")])
    looked = replace(
        judged,
        look_number=1,
        reason=f"{judged.reason.partition(':')[0]}: its skill there is 0.4321",
        against=tuple(replace(a, test_raw_skill=0.4321) for a in judged.against),
        targets=(Target(name="test_skill", value=0.4321, target="> 0", met=True, comment="c"),),
    )
    text = html_of(looked)
    assert looked.reason.partition(":")[0] in text
    assert "best of 2 without skill" in text
    assert "<svg" in text
    assert "sealed" in text
    assert "43.2" not in text
    assert "0.432" not in text


def test_a_forecast_is_drawn_as_a_fan_over_the_last_candles() -> None:
    text = html_of(forecast())
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert len(pictures) == 2
    root = ET.fromstring(pictures[0])
    kinds = [e.tag.rpartition("}")[2] for e in root.iter()]
    assert kinds.count("rect") == 16  # a candle each
    assert kinds.count("polygon") == 1  # the 80 % band
    assert kinds.count("circle") == 6  # the median: the origin and five leads
    assert "&lt;b&gt;X0&lt;/b&gt;" in text
    assert "<b>" not in text
    bare = html_of(forecast(1, recent=False))
    assert len(re.findall("<rect", bare)) == 1  # the last close alone


def test_of_many_items_some_are_drawn_and_it_says_so() -> None:
    text = html_of(forecast(30))
    assert text.count("<svg") == 4
    assert "4 of 30 items drawn" in text
    assert "50 of 150 shown" in text


def test_a_still_picture_lies_within_its_frame() -> None:
    spec = {
        "data": [
            {"type": "scatter", "mode": "lines+markers", "x": [1, 2, 3], "y": [5.0, None, -2.0],
             "error_y": {"array": [1, 1, 1], "arrayminus": [1, 1, 1]}},
        ],
        "layout": {"xaxis": {"title": {"text": "a &lt; b"}}, "yaxis": {}},
    }  # fmt: skip
    root = ET.fromstring(svg_of(spec, 'said "so" & thus', width=300, height=200))
    assert root.attrib["aria-label"] == 'said "so" & thus'
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == 2
    assert all(0 <= float(d.attrib["cx"]) <= 300 for d in dots)
    assert all(0 <= float(d.attrib["cy"]) <= 200 for d in dots)
    high, low = (float(d.attrib["cy"]) for d in dots)
    assert high < low  # more is further up


def test_without_the_extra_a_notebook_shows_the_plain_repr(
    made: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    render.templates.cache_clear()
    assert made.runs["good"]._repr_html_() is None
    render.templates.cache_clear()


def test_spoiled_test_files_are_never_read(made: Planted, tmp_path: Path) -> None:
    spoil_test(made)
    for value in (made.runs["good"], made.sweep):
        html_of(value)
