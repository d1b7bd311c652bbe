"""Weights as they are enter a sweep: alone, or beside what fine-tuning makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foresweep.data.splits import Cut
from foresweep.models.base import Facts
from foresweep.records import Run, RunState
from foresweep.search.events import Event, Planned
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import propose
from foresweep.search.sweep import sweep
from foresweep.search.trial import prepare
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from tiny_weights import write_weights

pytestmark = pytest.mark.slow

FACTS = Facts(horizon=5, max_context=1024, train_bars=8000)


@pytest.mark.parametrize("model", ["toto", "kronos", "chronos2"])
def test_every_zero_shot_config_of_a_family_can_be_tried(model: str, tmp_path: Path) -> None:
    weights = str(write_weights(model, tmp_path))
    plan = SweepPlan(models=(model,), mode="zero-shot", pretrained=weights, size=None)
    found = propose((model,), "zero-shot", base=plan.base, seed=0, count=5)
    assert len(found) >= 2
    for proposal in found:
        prepared = prepare(proposal, FACTS, plan)
        assert prepared.refused is None
        assert prepared.config["finetune"] == "none"


def runs_of(plan: SweepPlan, folder: Path) -> tuple[list[Run], Planned]:
    """The trained runs of a sweep, and what it planned."""
    heard: list[Event] = []
    db = folder / "sweeps.db"
    if not db.exists():
        know_baselines(db, plan)
    sweep(plan, db=db, runs=folder / "runs", listen=heard.append)
    with Tracker(folder / "sweeps.db") as tracker:
        found = [r for r in tracker.get_runs() if not r.is_baseline]
    return found, next(e for e in heard if isinstance(e, Planned))


def card_of(run: Run) -> dict[str, object]:
    card: dict[str, object] = json.loads((Path(str(run.checkpoint_path)) / "card.json").read_text())
    return card


def test_fine_tuning_is_shown_beside_the_weights_it_began_with(tmp_path: Path) -> None:
    """One trial was asked for; the weights as they are cost it nothing. A context that the panel
    has no room for leaves the next zero-shot config."""
    plan = SweepPlan(
        models=("chronos2",),
        mode="quick",
        max_runs=1,
        max_steps=4,
        cut=Cut(stride=40, max_context=128),
        pretrained=str(write_weights("chronos2", tmp_path / "weights")),
        size=None,
        pretrain_cutoff="2009-12-31",
    )
    found, planned = runs_of(plan, tmp_path)
    assert {r.state for r in found} == {RunState.COMPLETE}
    untrained, tuned = sorted(found, key=lambda r: r.hyperparams["finetune"] != "none")
    assert (untrained.source, len(found)) == ("beside: zero-shot on prices, context 128", 2)
    assert untrained.fingerprint == tuned.fingerprint
    assert not [p for p in planned.refused if p.proposal.is_companion]
    steps = {r.run_id: card_of(r)["fitted"]["step"] for r in found}  # type: ignore[index]
    assert (steps[untrained.run_id], steps[tuned.run_id] > 0) == (0, True)
    for run in found:
        said = {"date": "2009-12-31", "source": "said with --pretrain-cutoff"}
        assert card_of(run)["pretrain_cutoff"] == said
    with Tracker(tmp_path / "sweeps.db") as tracker:
        assert tracker.get_sweep().plan["pretrain_cutoff"] == "2009-12-31"
        child = replace(plan, mode="zero-shot", pretrained=tuned.checkpoint_path)
    grown, _ = runs_of(replace(child, pretrain_cutoff=None), tmp_path)
    (born,) = (r for r in grown if r.hyperparams["pretrained"] == tuned.checkpoint_path)
    assert card_of(born)["pretrain_cutoff"]["date"] == str(card_of(tuned)["selected_until"])[:10]  # type: ignore[index]
