"""What `sweep` and `train` make of their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foresweep.cli.main import main
from foresweep.data.splits import Cut
from foresweep.models.base import Resources
from foresweep.search import sweep as search
from foresweep.search.plan import SweepPlan
from shells import Shell

EVERY = [
    "--data", "demo", "--horizon", "7", "--objective", "pinball", "--pretrained", "published",
    "--pretrain-cutoff", "2024-05-31", "--max-steps", "9", "--seed", "3", "--stride", "11",
    "--max-context", "64", "--device", "cpu", "--threads", "2", "--micro-batch", "4",
    "--inference-batch", "17", "--gradient-checkpointing", "--again", "--actions", "splits.csv",
]  # fmt: skip
ASKED = {
    "data": "demo", "cut": Cut(7, 11, 64, seed=3), "objective": "pinball",
    "pretrained": "published", "size": None,
    "pretrain_cutoff": "2024-05-31", "max_steps": 9,
    "again": True, "actions": "splits.csv", "resources": Resources("cpu", 2, 4, 17, True),
}  # fmt: skip


def planned(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> SweepPlan:
    """The plan that a command hands over, which then goes no further."""
    plans: list[SweepPlan] = []

    def stop(plan: SweepPlan, **rest: Any) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr(search, "run_sweep", stop)
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 130
    return plans[0]


def test_every_option_of_a_sweep_reaches_its_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = ["--model", "toto", "-m", "drift", "--mode", "zero-shot", "--max-runs", "3"]
    plan = planned(monkeypatch, tmp_path, "sweep", *own, *EVERY)
    wanted = {**ASKED, "models": ("toto", "drift"), "mode": "zero-shot", "max_runs": 3}
    assert {k: getattr(plan, k) for k in wanted} == wanted


def test_every_option_of_a_training_by_hand_reaches_its_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned(monkeypatch, tmp_path, "train", "--model", "toto", "--set", "lr=2e-3", *EVERY)
    assert {k: getattr(plan, k) for k in ASKED} == ASKED
    (proposal,) = plan.proposals
    assert proposal.config == {"pretrained": "published", "size": None, "lr": 2e-3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sweep", "-m", "toto", "--mode", "zero-shot"), "--pretrained published"),
        (("sweep", "-m", "toto", "--pretrain-cutoff", "2024-01-01"), "models from scratch"),
        (("train", "-m", "toto", "--pretrained", "x", "--pretrain-cutoff", "May"), "no date"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_is_done(
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in Shell(capsys).error(*words, code=2)
    assert not list(tmp_path.iterdir())
