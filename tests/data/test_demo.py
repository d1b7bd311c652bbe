"""The demo panel: six real items, one window, nothing masked, nothing downloaded."""

from __future__ import annotations

import gzip
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from foresweep.data import demo
from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.errors import DataError, MissingExtra


@pytest.fixture(scope="module")
def panel() -> Panel:
    return demo.demo_panel()


def test_the_demo_has_six_items_and_2148_sessions(panel: Panel) -> None:
    assert panel.items == ("AAPL", "GOOG", "IBM", "MSFT", "NASDAQ", "SP500")
    assert len(panel.timeline) == len(panel.eligible) == 2148
    ends = panel.timeline[[0, -1]].astype("datetime64[D]").astype(str).tolist()
    assert ends == ["2004-08-19", "2013-03-01"]
    assert [len(b.values) for b in panel.bars] == [2148] * 6


def test_the_demo_is_adjusted_for_splits(panel: Panel) -> None:
    """AAPL split 2-for-1 on 2005-02-28; its worst day in the window is 2008-09-29 (-18 %)."""
    for bars in panel.bars:
        assert np.abs(np.diff(np.log(bars.values[:, 3]))).max() < 0.25
    aapl = panel.bars[0].values
    worst = int(np.diff(np.log(aapl[:, 3])).argmin()) + 1
    assert str(panel.timeline[worst])[:10] == "2008-09-29"


def test_the_demo_adjusts_all_four_prices_alike(panel: Panel) -> None:
    spec = demo.find_spec("bokeh_sampledata")
    assert spec is not None
    content = (Path(str(spec.origin)).parent / "_data/stocks.csv.gz").read_bytes()
    text = gzip.decompress(content).decode()
    row = next(line for line in text.splitlines() if line.startswith("AAPL,2004-08-19"))
    opened, high, low, close, volume, adjusted = map(float, row.split(",")[2:])
    wanted = np.array([opened, high, low, close]) * adjusted / close
    assert panel.bars[0].values[0] == pytest.approx([*wanted, volume], rel=1e-12)


def test_the_demo_goes_through_the_gate(panel: Panel) -> None:
    loaded = load_panel("demo")
    assert loaded.panel.hash == panel.hash
    assert loaded.report.source == "demo"
    assert {f.rule for f in loaded.report.findings} == {"calendar", "survivorship"}
    assert loaded.report.num_masked == 0


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"bokeh-sampledata.*foresweep\[demo\]"):
        demo.demo_panel()


def test_a_package_that_moved_its_files_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ModuleSpec("bokeh_sampledata", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(demo, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="this version of bokeh_sampledata"):
        demo.demo_panel()


def test_the_demo_imports_neither_bokeh_nor_arch() -> None:
    code = (
        "import sys; from foresweep.data.demo import demo_panel; demo_panel();"
        "print([m for m in ('bokeh', 'bokeh_sampledata', 'arch', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
