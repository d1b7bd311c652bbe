"""A sweep with rolling refits to its verdict: test is forecast by refits that are trained when it
is opened, and such scores stand in no table with others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from foresweep.data.splits import Cut
from foresweep.errors import UsageError
from foresweep.lifecycle.champion import promote
from foresweep.models.checkpoint import read_checkpoint
from foresweep.records import Outcome, Run
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.stage import reopen
from foresweep.search.sweep import train
from foresweep.selection.verdict.runs import verdict_on_runs
from foresweep.tracker.tracker import Tracker
from panels import sine_panel
from planted_model import plugin

pytestmark = pytest.mark.slow

SEASONED = """from foresweep.models.base import as_dict
from foresweep.models.baselines.naive import SeasonalNaive
from foresweep.models.checkpoint import write_checkpoint


class Guest(SeasonalNaive):
    name = "guest"

    def train(self, job):
        last = str(max(job.windows.timestamps(i)[-1] for i in range(len(job.windows.items))))
        config = as_dict(job.config)
        return write_checkpoint(job.out, model=self.name, config=config, card={"last": last})
"""
PLAN = SweepPlan(models=("guest",), cut=Cut(stride=8, max_context=64, refits=2))


@dataclass
class Place:
    folder: Path
    plan: SweepPlan
    run: Run

    def train(self, plan: SweepPlan) -> Run:
        db, runs = self.folder / "sweeps.db", self.folder / "runs"
        return train(plan, {"season_length": 32}, db=db, runs=runs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A model that knows the period of the sines it is asked about: no gate holds it."""
    folder = tmp_path_factory.mktemp("refitted")
    with plugin(tmp_path_factory.mktemp("guest"), module=SEASONED):
        sine_panel(1700).to_frame().write_csv(folder / "sines.csv")
        plan = by_hand(replace(PLAN, data=str(folder / "sines.csv")), {"season_length": 32})
        made = Place(folder, plan, None)  # type: ignore[arg-type]
        made.run = made.train(plan)
        yield made


def lasts(run: Run, part: str) -> list[str]:
    """The last bar that the weights of each refitted stretch of a part saw."""
    folder = Path(str(run.forecasts_path)) / "refits"
    return [str(read_checkpoint(p).card["last"]) for p in sorted(folder.glob(f"{part}-*"))]


def test_the_verdict_opens_test_with_refits_of_its_own_and_says_what_it_is_about(
    place: Place,
) -> None:
    assert len(lasts(place.run, "val")) == 1  # the first stretch is forecast by its own weights
    assert lasts(place.run, "test") == []
    with Tracker(place.folder / "sweeps.db") as tracker:
        with pytest.raises(UsageError, match="refitted 2 times over its test"):
            verdict_on_runs(tracker, [place.run.run_id], growing=True)
        assert tracker.judgings.test_looks() == []
        assert lasts(place.run, "test") == []
        (found,) = verdict_on_runs(tracker, [place.run.run_id])
        panel, split = reopen(tracker.get_sweep(place.run.sweep_id), place.folder / "runs")
        with pytest.raises(UsageError, match=r"promote \S+ --refit"):
            promote(tracker, place.run.run_id)
    assert found.outcome is Outcome.PROMOTE
    assert found.look_number == 1
    assert any("forecast in 2 stretches each" in note for note in found.notes)
    known = [s.known - 1 for s in split.stretches(panel, "test")]
    assert [np.datetime64(t) for t in lasts(place.run, "test")] == list(panel.timeline[known])


def test_what_is_refitted_stands_in_no_table_with_what_is_not(place: Place) -> None:
    plain = replace(place.plan, cut=replace(place.plan.cut, refits=1))
    other = place.train(plain)
    assert other.run_id != place.run.run_id  # an equal config, and no equal run
    assert other.panel_hash == place.run.panel_hash
    assert other.task_hash != place.run.task_hash
    assert other.fingerprint != place.run.fingerprint
    assert other.fingerprints["tune"] == place.run.fingerprints["tune"]
    with Tracker(place.folder / "sweeps.db") as tracker:
        (same,) = tracker.get_runs("guest", fingerprint=place.run.fingerprint)
        lineage = tracker.judgings.lineage([str(place.run.sweep_id)])
    assert same.run_id == place.run.run_id
    assert other.sweep_id in lineage.sweep_ids  # both count: they saw the same bars
