"""The same search where there is nothing to foretell: an honest one finds nothing there, a leak
that no change of the context shows still does; and its runs are never taken for real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import UsageError
from foresweep.records import Sweep
from foresweep.search.plan import SweepPlan, on_surrogate
from foresweep.search.sweep import sweep
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.selection.verdict.surrogates import in_words, surrogates_of
from foresweep.tracker.tracker import Tracker
from panels import make_frame
from planted_model import plugin
from shells import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEAKS = {
    "future bar": "later[:, CLOSE]",
    "centred mean": "later[:, CLOSE].mean() * np.ones(len(later))",
}
"""What a model that reads its answers off the disk makes of the bars after the origin: the context
that it is given says nothing of it, so that no change of it moves a forecast."""
MODULE = """from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foresweep.data.panel import CLOSE
from foresweep.data.tables import read_panel
from foresweep.models.base import Forecast
from learning_model import Learner


@dataclass(frozen=True)
class Cheat:
    context_length: int = 32

    def predict(self, context, *, horizon, levels, seed):
        last = context.values[:, -1, CLOSE]
        told = np.repeat(last[:, None], horizon, axis=1)
        panels = [read_panel(p) for p in sorted(Path("PANELS").glob("*.npz"))]
        for n, (item, times) in enumerate(zip(context.item_ids, context.timestamps)):
            for panel in panels:
                i = panel.index(item)
                at = int(np.searchsorted(panel.timestamps_of(i), times[-1]))
                rows = panel.bars[i].values
                if at < len(rows) and np.isclose(rows[at, CLOSE], last[n], rtol=1e-12):
                    later = rows[at + 1 : at + 1 + horizon]
                    known = LEAK
                    told[n, : len(later)] += 0.3 * (known - last[n])
        spread = 1 + 0.02 * (np.asarray(levels) - 0.5)
        return Forecast(told[:, :, None] * spread, levels)


class Guest(Learner):
    name = "guest"

    def after(self, config, step):
        return Cheat()
"""


def swept(folder: Path, horizon: int = 2) -> Sweep:
    data = folder / "prices.csv"
    make_frame(4, 700).write_csv(data)
    plan = SweepPlan(
        models=("guest",),
        mode="priority",
        data=str(data),
        cut=Cut(horizon, stride=2, max_context=64),
        max_runs=1,
    )
    return sweep(plan, db=folder / "hyperparams/sweeps.db", runs=folder / "hyperparams/runs")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return Shell(capsys)


def test_an_honest_search_finds_nothing_and_its_surrogate_stays_apart(
    shell: Shell, tmp_path: Path
) -> None:
    with plugin(tmp_path, module=learning_model.MODULE, space=learning_model.SPACE):
        real = swept(tmp_path)
        out = shell("surrogate", "--workers", "1")
        again = json.loads(shell("surrogate", "--json"))
    assert "On surrogate prices (signs of returns flipped, seed 0) this search would" in out
    assert out.strip().endswith("and nothing of it passed for skill.")
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        made, first = tracker.list_sweeps()
        assert (first.sweep_id, made.sweep_id) == (real.sweep_id, again["sweep_id"])
        assert made.panel_hash != real.panel_hash
        assert tracker.get_sweep("latest").sweep_id == real.sweep_id
        best = tracker.get_best_model(require_checkpoint=False)
        assert best is not None
        assert best.sweep_id == real.sweep_id
        assert tracker.judgings.lineage([real.sweep_id]).sweep_ids == (real.sweep_id,)
        assert tracker.judgings.lineage([made.sweep_id]).sweep_ids == (made.sweep_id,)
        (verdict,) = verdict_on_runs(tracker)
        (told,) = verdict.surrogates
        assert told == again
        assert not told["alarm"]
        with pytest.raises(UsageError, match="name that"):
            on_surrogate(made, kind="signs", seed=1)
    assert "On surrogate prices" in shell("verdict", code=3)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_that_no_change_of_the_context_shows_lights_the_alarm(
    shell: Shell, tmp_path: Path, leak: str
) -> None:
    panels = str(tmp_path / "hyperparams/runs/panels")
    module = MODULE.replace("LEAK", LEAKS[leak]).replace("PANELS", panels)
    with plugin(tmp_path, module=module, space=learning_model.SPACE):
        real = swept(tmp_path)
        out = shell("surrogate", "--workers", "1", code=1)
    assert out.splitlines()[-1].startswith("LEAK ALARM: on surrogate prices (signs of returns")
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        (told,) = surrogates_of(tracker, real)
    assert told["alarm"]
    assert told["skills"]["last-value"] > 0.1
    assert in_words(told).endswith(f"foresweep doctor --leaks {told['candidate']}")
