"""What is in service: the champion, how it does live, what was there before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foresweep.reporting import pages
from foresweep.reporting.blocks import Facts, Page, Words
from foresweep.reporting.pages import service_page
from foresweep.reporting.views import Links, Site
from foresweep.tracker.monitoring import Monitoring
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker


def words_of(page: Page) -> str:
    return " ".join(b.text for s in page.sections for b in s.blocks if isinstance(b, Words))


def test_without_a_champion_it_says_how_to_get_one(tmp_path: Path) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        page = service_page(Site(tracker, tmp_path, Links(is_live=True)))
    assert "foresweep promote RUN" in words_of(page)


def test_a_champion_stands_with_its_live_skill_its_alarms_and_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tracker(tmp_path / "sweeps.db") as tracker:
        site = Site(tracker, tmp_path, Links(is_live=True))
        rng = np.random.default_rng(0)
        days = [f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}" for n in range(100)]
        ours, gaps = rng.normal(1, 0.1, 100), rng.normal(0.2, 0.3, 100)
        runs = [tracker.log_run("toto", {"lr": x}, {"val_pct_mae": x}) for x in (1.0, 2.0)]
        service = Service(tracker.store)
        for run_id in runs:
            service.change("daily", "promote", run_id=run_id, manifest=run_id, reason="<try>",
                           who="me")  # fmt: skip
        page = service_page(site)
        assert "No monitor has looked at this champion yet" in words_of(page)
        check = {
            "run_id": runs[1], "state": "alarm", "num_origins": 40, "coverage": 0.6,
            "reasons": [{"state": "alarm", "kind": "worse", "text": "worse than last-value"}],
            "last_bar": "2026-01-02", "horizon": 1, "next_sweep": "foresweep sweep --model toto",
            "against": [{"first": runs[1], "second": "last-value", "num_origins": 40,
                         "skill": -0.05, "pvalue": 0.01, "level": 0.025, "is_found": True}],
            "shadows": [],
        }  # fmt: skip
        Monitoring(tracker.store).put_check("daily", "alarm", check)
        page = service_page(site)
        told = words_of(page)
        (tiles,) = (b for b in page.sections[0].blocks if isinstance(b, Facts))
        monkeypatch.setattr(
            pages, "live_series",
            lambda *_: {"origins": days, "champion": ours, "benchmark": ours + gaps,
                        "last_value": ours},
        )  # fmt: skip
        spec = page.figures()["live-benchmark-1"].build()
    assert "ALARM: worse than last-value" in told
    assert "foresweep sweep --model toto" in told
    facts = {name: cell.text for name, cell in tiles.pairs}
    assert facts["champion"] == runs[1]
    assert facts["rollback returns to"] == runs[0]
    assert facts["80 % band holds, live"] == "60 %"
    tables = page.tables()
    assert tables["live-1"].rows[0][3].text == "-5.00 %"
    assert [r[1].text for r in tables["history-1"].rows] == runs[::-1]
    band, mean = spec["data"]
    drawn = len(mean["y"])
    assert 60 < drawn <= 100  # the first origins have no bounds yet
    assert mean["x"] == days[-drawn:]
    assert mean["y"][-1] == pytest.approx(gaps.mean())
    high, low = band["y"][:drawn], band["y"][drawn:][::-1]
    assert all(lo < m < hi for lo, m, hi in zip(low, mean["y"], high, strict=True))
    fixed = 1.645 * gaps.std(ddof=1) / 10
    assert high[-1] - mean["y"][-1] > fixed  # wider than for one look
