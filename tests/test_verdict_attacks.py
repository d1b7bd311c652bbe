"""The verdict under attack: a few sweeps of each kind here, 200 of each under soak."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import verdict_attacks as campaign

BY_NAME = {attack.name: attack for attack in campaign.ATTACKS}


@pytest.mark.parametrize(
    "name", ["ar9", "one9", "naive", "one-item", "noisy", "storms", "worst", "alone", "doctored"]
)
def test_what_once_fooled_the_verdict_does_not(name: str) -> None:
    assert campaign.repeat(BY_NAME[name], 3) == 0.0


def test_what_is_true_is_still_promoted_with_holes_and_in_quiet_items() -> None:
    assert campaign.repeat(BY_NAME["holes"], 3) > 0
    assert campaign.repeat(BY_NAME["quiet"], 3) > 0


def test_who_looks_after_every_trial_pays_for_every_look() -> None:
    """Of 60 equals one is found by somebody whose looks cost nothing, in this sweep."""
    assert campaign.peeks(np.random.default_rng([33, 17]), counted=False)
    assert not campaign.peeks(np.random.default_rng([33, 17]))


@pytest.mark.slow
def test_real_losses_without_skill_are_read_daily_for_a_year_and_nothing_is_found() -> None:
    d = campaign.real_differences(1)
    assert [len(x) > 1000 for x in d] == [True] * 3
    assert max(abs(x.mean()) / x.std() for x in d) < 1e-9
    assert campaign.repeat(BY_NAME["growing-1"], 3) == 0.0


def test_losses_that_go_on_do_so_as_said() -> None:
    d = campaign.persistent(np.random.default_rng(0), (5000,), 0.5)
    assert np.corrcoef(d[1:], d[:-1])[0, 1] == pytest.approx(0.5, abs=0.05)
    assert d.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.soak
@pytest.mark.parametrize("attack", campaign.ATTACKS, ids=lambda a: a.name)
def test_every_attack_is_held_to_its_bound(attack: campaign.Attack) -> None:
    share = campaign.repeat(attack, 200)
    assert campaign.held(attack, share), f"{attack.says}: {share:.3f}"
