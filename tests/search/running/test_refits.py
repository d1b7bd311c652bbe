"""Rolling refits: val and test in stretches, each forecast by weights that were trained again on
all bars before it and on none that come later."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from foresweep.cli.live import draw_dry_run
from foresweep.data.panel import Panel
from foresweep.data.splits import Cut, make_split
from foresweep.data.tables import write_panel
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import TrainingDiverged, UsageError
from foresweep.evaluation.losses import load_losses
from foresweep.models.base import Facts, silent
from foresweep.models.checkpoint import read_checkpoint
from foresweep.models.training import loop
from foresweep.search.engines.base import Channel
from foresweep.search.plan import SweepPlan, as_record
from foresweep.search.propose.modes import Proposal
from foresweep.search.refitting import REFITS
from foresweep.search.running import costs
from foresweep.search.running.costs import Estimate, StageCost
from foresweep.search.trial import Ground, Prepared, RunSpec, RunTask, prepare
from learning_model import Off
from panels import make_panel
from planted_model import plugin

SEEING = """from pathlib import Path

from foresweep.models.base import as_dict, unscored
from foresweep.models.checkpoint import write_checkpoint
from learning_model import Learner, Off


class Guest(Learner):
    name = "guest"

    def train(self, job):
        if job.out.name in Path("FORBIDDEN").read_text().split():
            raise RuntimeError("broken off")
        with open("TRAINED", "a") as log:
            log.write(f"{job.out.name}\\n")
        if job.score is not unscored:
            job.score(Off(1.0))
        seen = [job.windows.timestamps(i) for i in range(len(job.windows.items))]
        card = {"bars": sum(map(len, seen)), "last": str(max(times[-1] for times in seen))}
        config = as_dict(job.config)
        return write_checkpoint(
            job.out, model=self.name, config=config, card={**card, "fitted": {"step": 8}}
        )

    def load(self, checkpoint, resources):
        return Off(checkpoint.card["bars"] / 1000)
"""
"""A model that says what it saw, and whose forecasts are off by a thousandth percent a bar."""
CUT = Cut(horizon=3, stride=4, max_context=64, refits=3)
HERE: Channel = silent  # type: ignore[assignment]


@dataclass
class Place:
    folder: Path
    panel: Panel

    def task(self, name: str, cut: Cut = CUT, **more: Any) -> RunTask:
        ground = Ground(self.folder / "panel.npz", cut)
        facts = Facts(cut.horizon, 64, train_bars=1000)
        made = prepare(Proposal("guest", {}, "by hand"), facts, SweepPlan(models=("guest",)))
        assert made.refused is None
        return RunTask(RunSpec(ground, made), name, self.folder / name, **more)

    def run(self, name: str, cut: Cut = CUT, **more: Any) -> Mapping[str, float]:
        task = self.task(name, cut, **more)
        task.out.mkdir()
        return task(HERE).scores

    def trained(self) -> list[str]:
        log = self.folder / "trained"
        return log.read_text().split() if log.exists() else []

    def forbid(self, *names: str) -> None:
        (self.folder / "forbidden").write_text(" ".join(names))

    def card(self, run: str, name: str) -> dict[str, Any]:
        return dict(read_checkpoint(self.folder / run / name).card)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    module = SEEING.replace("FORBIDDEN", str(tmp_path / "forbidden"))
    made = Place(tmp_path, make_panel(3, 500))
    made.forbid()
    write_panel(tmp_path / "panel.npz", made.panel)
    with plugin(tmp_path, module=module.replace("TRAINED", str(tmp_path / "trained"))):
        yield made


def test_a_refitted_model_sees_no_bar_of_its_stretch_and_h_less_than_the_bars_before(
    place: Place,
) -> None:
    place.run("run")
    assert place.trained() == ["checkpoint", "val-2", "val-3"]
    split = make_split(place.panel, CUT)
    val = split.part("val")
    for stretch in split.stretches(place.panel, "val")[1:]:
        card = place.card("run", f"{REFITS}/val-{stretch.number}")
        bars = place.panel.eligible
        last = int(np.searchsorted(place.panel.timeline, np.datetime64(card["last"])))
        first_label = bars[bars > val.origins[stretch.first]][0]
        between = (bars > last) & (bars < first_label)
        assert between.sum() == CUT.horizon
    train = TrainWindows(place.panel, split, split.part("train"))
    assert place.card("run", "checkpoint")["last"] == str(train.timestamps(0)[-1])


def test_the_joined_losses_are_those_of_its_stretches(place: Place) -> None:
    scores = place.run("run")
    split = make_split(place.panel, CUT)
    windows = Windows(place.panel, split, split.part("val"))
    joined = load_losses(place.folder / "run" / "val" / "losses.npz")
    names = ["checkpoint", f"{REFITS}/val-2", f"{REFITS}/val-3"]
    offs = [place.card("run", name)["bars"] / 1000 for name in names]
    assert len(set(offs)) == 3
    by_hand = np.full(joined.losses["pct_mae"].shape, np.nan)
    for off, stretch in zip(offs, split.stretches(place.panel, "val"), strict=True):
        made = Off(off).predict(windows.context(32), horizon=3, levels=(0.5,), seed=0)
        error = 100 * np.abs(made.values[:, :, 0] - windows.labels) / windows.last_close[:, None]
        mine = slice(stretch.first, stretch.last)
        by_hand[mine] = windows.as_panel(error.mean(axis=1))[mine]
    np.testing.assert_allclose(joined.losses["pct_mae"], by_hand, rtol=1e-9)
    assert scores["val_pct_mae"] == pytest.approx(np.nanmean(by_hand))
    assert joined.fingerprint == windows.fingerprint


def test_without_refits_a_trial_is_trained_once_and_its_windows_have_the_name_they_had(
    place: Place,
) -> None:
    plain = replace(CUT, refits=1)
    place.run("run", plain)
    assert place.trained() == ["checkpoint"]
    panel = place.panel
    once, often = make_split(panel, plain), make_split(panel, CUT)
    prints = {
        name: [Windows(panel, split, split.part(name)).fingerprint for split in (once, often)]
        for name in ("tune", "val", "test")
    }
    assert prints["tune"][0] == prints["tune"][1]  # nothing of tune is refitted
    assert prints["val"][0] != prints["val"][1]
    assert prints["test"][0] != prints["test"][1]
    assert prints["val"][0].startswith("2dc72d33fbea")  # as it was before there were refits


def test_a_trial_that_is_broken_off_between_its_refits_trains_the_rest_alone(
    place: Place,
) -> None:
    whole = place.run("whole")
    place.forbid("val-3")
    with pytest.raises(RuntimeError, match="broken off"):
        place.run("first")
    place.forbid()
    before = len(place.trained())
    again = place.run("second", earlier=(place.folder / "first",))
    assert place.trained()[before:] == ["val-3"]
    np.testing.assert_equal(dict(again), dict(whole))


def test_a_config_that_is_asked_differently_takes_the_refits_of_the_same_training(
    place: Place,
) -> None:
    whole = place.run("whole")
    other = place.run("other", trained=place.folder / "whole" / "checkpoint")
    assert place.trained() == ["checkpoint", "val-2", "val-3"]
    np.testing.assert_equal(dict(other), dict(whole))


@pytest.mark.slow
def test_a_refit_that_is_broken_off_goes_on_from_its_last_state_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make_panel(2, 400)
    write_panel(tmp_path / "panel.npz", panel)
    cut = replace(CUT, refits=2)
    split = make_split(panel, cut)
    facts = Facts(split.horizon, split.max_context, train_bars=500, step_cap=16)
    asked = {"size": "tiny", "context_length": 32, "batch_size": 4, "fit_scale": True}
    made: Prepared = prepare(
        Proposal("chronos2", asked, "by hand"), facts, SweepPlan(models=("chronos2",))
    )
    assert made.refused is None
    steps: list[int] = []
    advance = loop._Run.advance

    def run(name: str, earlier: tuple[Path, ...] = (), breaks_at: int | None = None) -> Any:
        steps.clear()

        def counted(self: Any, first_step: int) -> None:
            if len(steps) == breaks_at:
                raise TrainingDiverged("broken off")
            steps.append(first_step)
            advance(self, first_step)

        monkeypatch.setattr(loop._Run, "advance", counted)
        (tmp_path / name).mkdir()
        spec = RunSpec(Ground(tmp_path / "panel.npz", cut), made)
        return RunTask(spec, name, tmp_path / name, earlier=earlier)(HERE).scores

    whole = run("whole")
    own = 16
    kept = len(steps) - own
    assert 0 < kept <= own
    assert read_checkpoint(tmp_path / "whole" / REFITS / "val-2").card["fitted"]["step"] == kept
    with pytest.raises(TrainingDiverged):
        run("first", breaks_at=len(steps) - 1)
    again = run("second", earlier=(tmp_path / "first",))
    assert 0 < len(steps) < kept
    np.testing.assert_equal(dict(again), dict(whole))


def test_what_refits_cannot_be_is_refused_and_says_why() -> None:
    plan = SweepPlan(models=("toto",), cut=replace(Cut(), refits=4))
    with pytest.raises(UsageError, match="weights as they are learn nothing"):
        replace(plan, mode="zero-shot", pretrained="published", size=None).checked()
    with pytest.raises(UsageError, match="nobody knows before; use --time-budget"):
        replace(plan, step_budget=100).checked()
    assert plan.checked().cut.refits == 4


def test_a_record_of_a_plan_without_refits_says_nothing_of_them() -> None:
    plain = as_record(SweepPlan(models=("toto",)))
    assert "refits" not in json.loads(json.dumps(plain))["cut"]
    assert as_record(SweepPlan(models=("toto",), cut=Cut(refits=2)))["cut"]["refits"] == 2


def test_a_trial_costs_its_steps_as_often_as_it_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"max_steps": 10}
    made = Prepared(Proposal("toto", config, "quick: a"), config, "hash", "hash")
    plan = SweepPlan(models=("toto",), max_runs=1, cut=Cut(refits=4))
    found = Estimate("toto", config, "cpu", 1, 9, (StageCost(9, 0.5),), 0.1, 1.0, 2.0, None)
    monkeypatch.setattr(costs, "run_task", lambda *_, **__: (found, 3, 20))
    stage: Any = SimpleNamespace(plan=plan, ground=None, engine=None)
    known = costs.costs_of(stage, [made])
    assert known["hash"].seconds == 4 * 10 * 0.5 + (20 + 8 * 3) * 0.1
    out = StringIO()
    draw_dry_run(Console(file=out, width=200), plan, [made], (), known, 1)
    assert "1 trial to train 4 times each (as often again whose test is opened), 40 steps" in (
        out.getvalue()
    )


def test_a_dry_run_says_which_trials_a_time_budget_begins() -> None:
    trials = [
        Prepared(Proposal("toto", {}, f"quick: {k}"), {"max_steps": 10}, f"hash{k}", "")
        for k in range(4)
    ]
    known = {f"hash{k}": costs.Cost(None, took) for k, took in enumerate((60.0, 600.0, 60.0, 60.0))}
    plan = SweepPlan(models=("toto",), max_runs=4, time_budget_s=100.0)
    out = StringIO()
    draw_dry_run(Console(file=out, width=300), plan, trials, (), known, 2)
    assert "the first 3 of them begin; the last ends about 10 min after" in out.getvalue()
    hours = {h: replace(c, seconds=100 * c.seconds) for h, c in known.items()}
    plan = replace(plan, time_budget_s=None)
    draw_dry_run(Console(file=out, width=300), plan, trials, (), hours, 2)
    assert "To spend less: --max-steps N" in out.getvalue()
