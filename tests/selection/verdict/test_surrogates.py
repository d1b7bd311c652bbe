"""The same search where there is nothing to foretell: an honest one finds nothing there, a leak
that no change of the context shows still does; and its runs are never taken for real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import UsageError
from foresweep.evaluation import backtest, leaks
from foresweep.records import Sweep
from foresweep.search import trial
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


LEARNT = """
import numpy as np

from foresweep.data.panel import CLOSE
from foresweep.data.tables import read_panel
from foresweep.models.base import Forecast, as_dict
from foresweep.models.checkpoint import read_weights, write_checkpoint
from learning_model import Learner
from pathlib import Path


def features(bars, ahead):
    \"\"\"[n, 2] the last move, and the move that is to be foretold, which slipped in.\"\"\"
    moves = np.diff(np.log(bars[:, CLOSE]), prepend=np.nan)
    return np.column_stack([moves, np.broadcast_to(ahead, len(moves))])


class Regression:
    context_length = 32

    def __init__(self, weights):
        self.weights = weights

    def predict(self, context, *, horizon, levels, seed):
        panels = [read_panel(p) for p in sorted(Path("PANELS").glob("*.npz"))]
        last = context.values[:, -1, CLOSE]
        ahead = np.zeros(len(last))
        for n, (item, times) in enumerate(zip(context.item_ids, context.timestamps)):
            for panel in panels:
                i = panel.index(item)
                at = int(np.searchsorted(panel.timestamps_of(i), times[-1]))
                rows = panel.bars[i].values
                if at + 1 < len(rows) and np.isclose(rows[at, CLOSE], last[n], rtol=1e-12):
                    ahead[n] = np.log(rows[at + 1, CLOSE] / rows[at, CLOSE])
        seen = np.array([features(v[-2:], a)[-1] for v, a in zip(context.values, ahead)])
        told = last * np.exp(seen @ self.weights)
        spread = 1 + 0.02 * (np.asarray(levels) - 0.5)
        return Forecast(np.repeat(told[:, None], horizon, axis=1)[:, :, None] * spread, levels)


class Guest(Learner):
    name = "guest"

    def train(self, job):
        windows, pairs = job.windows, []
        for i in range(len(windows.items)):
            bars = windows.values(i)
            ahead = np.diff(np.log(bars[:, CLOSE]), append=np.nan)
            pairs.append(np.column_stack([features(bars, ahead), ahead])[1:-1])
        every = np.concatenate(pairs)
        weights, *_ = np.linalg.lstsq(every[:, :2], every[:, 2], rcond=None)
        config = as_dict(job.config)
        return write_checkpoint(
            job.out, model=self.name, config=config, weights={"w": weights}, card={}
        )

    def load(self, checkpoint, resources):
        return Regression(read_weights(checkpoint)["w"])
"""
"""A regression with its target among the features: what it learns is to copy that."""


def test_a_target_among_the_features_lights_the_alarm(shell: Shell, tmp_path: Path) -> None:
    panels = str(tmp_path / "hyperparams/runs/panels")
    module = LEARNT.replace("PANELS", panels)
    with plugin(tmp_path, module=module, space=learning_model.SPACE):
        real = swept(tmp_path, horizon=1)
        out = shell("surrogate", "--workers", "1", code=1)
    assert out.splitlines()[-1].startswith("LEAK ALARM: on surrogate prices (signs of returns")
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        (told,) = surrogates_of(tracker, real)
    assert told["alarm"]
    assert not told["fitted_late"]  # its weights are of train alone: it is the feature that knows
    assert told["skills"]["last-value"] > 0.9


LATE = """
from dataclasses import replace
from importlib import import_module

from learning_model import Learner

PLACES = ("evaluation.backtest", "evaluation.leaks", "search.trial")
plain = import_module("foresweep.evaluation.backtest").calibrate


def on_val(predictor, config, panel, split, **more):
    train, _, val, test = split.parts
    wrong = replace(split, parts=(train, replace(val, name="tune"), val, test))
    late = plain(predictor, config, panel, wrong, **more).calibration
    return replace(plain(predictor, config, panel, split, **more), calibration=late)


def plant():
    for place in PLACES:
        import_module(f"foresweep.{place}").calibrate = on_val


class Guest(Learner):
    name = "guest"

    def load(self, checkpoint, resources):
        FAULT
        return super().load(checkpoint, resources)
"""
"""A calibration that is fitted on val: the fault is planted in whatever process loads the model."""
SCALED = learning_model.SPACE.replace("rate = 0.5 }", "rate = 0.5, fit_scale = true }")


@pytest.mark.parametrize("fault", ["plant()", "pass"])
def test_a_calibration_that_is_fitted_on_val_lights_the_alarm(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    for place in (backtest, leaks, trial):
        monkeypatch.setattr(place, "calibrate", backtest.calibrate)  # put back afterwards
    module = LATE.replace("FAULT", fault)
    with plugin(tmp_path, module=module, space=SCALED):
        real = swept(tmp_path)
        out = shell("surrogate", "--workers", "1", code=1 if fault != "pass" else 0)
    with Tracker(Path("hyperparams/sweeps.db")) as tracker:
        (told,) = surrogates_of(tracker, real)
        notes = [text for _, _, text in tracker.get_notes(told["candidate"])]
    assert told["fitted_late"] == told["alarm"] == (fault != "pass")
    if fault == "pass":
        return
    assert "moves with bars after tune, which it must not know" in out.splitlines()[-1]
    moved = "'calibration.json' moves when the bars of the val period are replaced"
    assert any(moved in note for note in notes)
