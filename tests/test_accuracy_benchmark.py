"""The accuracy benchmark's table is of the house's own scores, and its cells are kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import accuracy

from foresweep.data.demo import demo_panel
from foresweep.data.splits import Cut, make_split
from foresweep.evaluation.backtest import calibrate, evaluate
from foresweep.models.base import Facts
from foresweep.models.baselines.naive import Drift
from foresweep.models.calibration import Calibrated, CalibrationConfig

DRIFT = accuracy.BASELINE_ENTRIES[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baselines' cells of the demo panel, one bar ahead."""
    out = tmp_path_factory.mktemp("cells")
    panel = demo_panel()
    for entry in accuracy.BASELINE_ENTRIES:
        cell = accuracy.Cell("demo", 1, entry, 0)
        cell.file(out).write_text(json.dumps(accuracy.run(cell, panel, out)))
    return out


def test_a_cell_holds_what_evaluation_finds_raw_and_calibrated(folder: Path) -> None:
    panel = demo_panel()
    split = make_split(panel, Cut(1, stride=5))
    family = Drift()
    raw = family.predictor(family.resolve(family.Config(), Facts(1, split.max_context, 0)))
    post = CalibrationConfig(centre=True, fit_scale=True)
    tuned = calibrate(raw, post, panel, split)
    found = json.loads(accuracy.Cell("demo", 1, DRIFT, 0).file(folder).read_text())
    for form, predictor in (("raw", raw), ("calibrated", Calibrated(raw, tuned.calibration))):
        scores = evaluate(predictor, panel, split, parts=("val", "test"))
        for part in ("val", "test"):
            assert found[form][part]["pinball"] == pytest.approx(scores[f"{part}_pinball"])
            assert len(found[form][part]["losses"]) == len(split.part(part).origins)


def test_the_table_names_the_benchmark_of_tune_and_compares_with_it(folder: Path) -> None:
    said = accuracy.report("demo", 1, 3, folder)
    cells = {
        e.name: json.loads(accuracy.Cell("demo", 1, e, 0).file(folder).read_text())
        for e in accuracy.BASELINE_ENTRIES
    }
    name, form = min(
        ((n, f) for n in cells for f in accuracy.FORMS),
        key=lambda x: cells[x[0]][x[1]]["tune"]["pinball"],
    )
    assert f"**{name}, {form}**" in said
    assert len([line for line in said.splitlines() if line.startswith("| ")]) == 6  # with heading
    assert "Toto" not in said  # nothing of it is there yet


def test_cells_come_seed_by_seed_and_what_draws_nothing_comes_once() -> None:
    found = list(accuracy.cells("demo", [1, 5], 3))
    assert [c.seed for c in found] == sorted(c.seed for c in found)
    assert sum(c.entry.name == "HAR" for c in found) == 2
    assert sum(c.entry.name == "Toto, scratch" for c in found) == 6
    assert len({c.file(Path()) for c in found}) == len(found)


def test_a_finished_cell_is_not_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy, "entries", lambda: accuracy.BASELINE_ENTRIES)
    monkeypatch.setattr(accuracy, "run", lambda *_: pytest.fail("run again"))
    monkeypatch.setattr(sys, "argv", ["x", "--horizon", "1", "--out", str(folder)])
    accuracy.main()
    assert "### demo, H = 1" in capsys.readouterr().out
