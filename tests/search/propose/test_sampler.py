"""Samplers: proposals lie in the space, follow from tellings and number alone, and learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from foresweep.records import RunState
from foresweep.search.propose.modes import Proposal
from foresweep.search.propose.tpe import Rounds, Told, TpeSampler, tell_all
from foresweep.space import Choice, Float, Int, SearchSpace

SPACE = SearchSpace(
    {
        "delta": Float(0.01, 1.0, log=True),  # before what it depends on
        "loss": Choice(("huber", "mse", "tilted")),
        "lr": Float(1e-5, 1e-1, log=True),
        "batch_size": Choice((8, 16, 64)),
        "context_length": Int(64, 500, 32),
        "width": Int(8, 100, 8, log=True),
        "flip": Choice((False, True)),
        "steps": Choice((100,)),
    },
    {"delta": {"loss": ["huber", "tilted"]}},
)


def make(seed: int = 0, *, objectives: tuple[str, ...] = ("pinball",)) -> TpeSampler:
    return TpeSampler("toto", SPACE, objectives=objectives, base={"size": "tiny"}, seed=seed)


def result(config: Any, number: int, *, state: RunState = RunState.COMPLETE) -> Told:
    loss = abs(np.log10(config["lr"]) + 3) + (config["loss"] != "huber")
    series = {4: {"pinball": loss}} if state == RunState.PRUNED else {}
    scores = {"pinball": loss} if state == RunState.COMPLETE else {}
    return Told("toto", config, state, scores, series, number)


def drawn(count: int) -> list[Told]:
    rng = np.random.default_rng(7)
    return [result(SPACE.sample(rng), k) for k in range(1, count + 1)]


def asked(sampler: TpeSampler, count: int, start: int = 100) -> list[dict[str, Any]]:
    found = [sampler.ask(n) for n in range(start, start + count)]
    return [dict(p.config) for p in found if p is not None]


@pytest.mark.parametrize("told", [0, 30])
def test_every_proposal_lies_in_the_space(told: int) -> None:
    sampler = make()
    tell_all(sampler, drawn(told))
    for c in asked(sampler, 25):
        assert c["size"] == "tiny"
        assert c["steps"] == 100
        assert ("delta" in c) == (c["loss"] != "mse")
        assert 1e-5 <= c["lr"] <= 1e-1
        assert c["context_length"] in range(64, 501, 32)
        assert c["width"] in range(8, 101, 8)
        assert c["batch_size"] in (8, 16, 64)


def test_a_proposal_follows_from_tellings_and_number_alone() -> None:
    """Asking changes nothing, nor does the order in which trials ended."""
    first, again, other = make(), make(), make(seed=1)
    tell_all(first, drawn(20))
    tell_all(again, reversed(drawn(20)))
    tell_all(other, drawn(20))
    asked(first, 5, start=1)
    assert asked(first, 4) == asked(again, 4) != asked(other, 4)
    assert first.ask(100) != first.ask(100, attempt=1)


def test_what_was_told_draws_proposals_near_the_best() -> None:
    fresh, wise = make(), make()
    tell_all(wise, drawn(40))

    def far(sampler: TpeSampler) -> float:
        return float(np.mean([abs(np.log10(c["lr"]) + 3) for c in asked(sampler, 30)]))

    assert far(wise) < 0.6 * far(fresh)


def test_trials_cut_short_count_as_worse_than_complete_ones() -> None:
    """All that were complete had small batches, all that were cut short or failed large ones."""
    sampler = make()
    for told in drawn(40):
        for batch, state in ((8, RunState.COMPLETE), (64, RunState.PRUNED), (64, RunState.FAILED)):
            config = {**told.config, "batch_size": batch}
            sampler.tell(result(config, told.number or 0, state=state))
    batches = [c["batch_size"] for c in asked(sampler, 30)]
    assert batches.count(64) < batches.count(8)


def test_a_trial_that_runs_is_not_proposed_once_more() -> None:
    """Others are at work near the best: the next proposal keeps its distance."""
    sampler = make()
    tell_all(sampler, drawn(40))
    alone = asked(sampler, 20)
    best = {**drawn(1)[0].config, "lr": 1e-3, "loss": "huber", "delta": 0.1}
    crowd = [Told("toto", best, RunState.RUNNING)] * 30
    found = [sampler.ask(n, crowd) for n in range(100, 120)]
    beside = [dict(p.config) for p in found if p is not None]
    near = [sum(abs(np.log10(c["lr"]) + 3) < 0.3 for c in cs) for cs in (alone, beside)]
    assert near[1] < near[0]
    assert asked(sampler, 20) == alone  # and they leave no trace


def test_what_lies_beyond_the_space_is_told_at_its_edge() -> None:
    sampler = make()
    config = {**drawn(1)[0].config, "lr": 5.0, "batch_size": 12, "loss": "other", "width": None}
    sampler.tell(result({**config, "lr": 5.0}, 1))
    (trial,) = sampler.study.trials
    assert trial.params["lr"] == 1e-1
    assert trial.params["batch_size"] == 0  # 8 is the nearest
    assert not {"loss", "width", "steps"} & set(trial.params)


@dataclass
class Listed:
    """A sampler that deals out proposals in order; results change nothing."""

    waiting: list[Proposal]

    def ask(
        self, number: int, running: Sequence[Told] = (), *, attempt: int = 0
    ) -> Proposal | None:
        return self.waiting.pop(0) if self.waiting else None

    def tell(self, told: Told) -> None:
        """Nothing to learn."""


def test_the_budget_is_handed_round_the_models() -> None:
    lists = {m: Listed([Proposal(m, {"k": k}, "x") for k in range(3)]) for m in ("a", "b")}
    rounds = Rounds(lists)
    order = []
    for number in range(1, 8):
        proposal = rounds.ask(number)
        if proposal is None:
            break
        order.append(proposal.model)
        rounds.tell(Told(proposal.model, proposal.config, RunState.COMPLETE, number=number))
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert rounds.ask(9) is None
