"""What a run may use reaches the training and the forecasts of every family, and changes rounding
alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foresweep.data.splits import Cut, make_split
from foresweep.data.tables import write_panel
from foresweep.data.windows import TrainWindows
from foresweep.models.base import Facts, Resources
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal
from foresweep.search.trial import Ground, RunSpec, RunTask, prepare
from kronos_tiny import SHAPE
from panels import make_panel

pytestmark = pytest.mark.slow

PANEL = make_panel(2, 400, seed=3)
ASKED = {"context_length": 64, "batch_size": 4, "max_steps": 3, "dropout": 0.0}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "toto": {},
    "kronos": {"context_length": 32, "num_samples": 4, **SHAPE},
    "chronos2": {},
}
ROUNDING = {"toto": 1e-4, "chronos2": 1e-4, "kronos": 2e-2}
"""Relative. Kronos draws tokens: one beside its edge flips by rounding, and few paths feel it."""


@dataclass
class Seen:
    """What torch was asked to do."""

    backward: int = 0
    recomputed: int = 0
    most_rows: int = 0  # of a network's input while nothing is learnt


@contextmanager
def watched() -> Iterator[Seen]:
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.utils import checkpoint

    seen = Seen()
    backward, recompute = torch.Tensor.backward, checkpoint.checkpoint

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.backward += 1
        return backward(self, *args, **kwargs)

    def told(*args: Any, **kwargs: Any) -> Any:
        seen.recomputed += 1
        return recompute(*args, **kwargs)

    def look(module: Any, args: tuple[Any, ...]) -> None:
        rows = [len(a) for a in args if torch.is_tensor(a) and a.ndim > 1]
        if not torch.is_grad_enabled():
            seen.most_rows = max([seen.most_rows, *rows])

    hook = register_module_forward_pre_hook(look)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", counted)
        patch.setattr(checkpoint, "checkpoint", told)
        try:
            yield seen
        finally:
            hook.remove()


def silent(step: int, scores: Any, losses: Any = None) -> None:
    """Hears what training reports."""


def run(model: str, resources: Resources, folder: Path) -> tuple[Mapping[str, float], Seen]:
    """The scores of a short trial, in this process, and what torch did for it."""
    folder.mkdir()
    ground = Ground(folder / "panel.npz", Cut(horizon=3, stride=6, max_context=64))
    write_panel(ground.panel_path, PANEL)
    split = make_split(PANEL, ground.cut)
    train = TrainWindows(PANEL, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(PANEL.num_items))
    facts = Facts(split.horizon, split.max_context, bars, step_cap=3)
    proposal = Proposal(model, {"size": "tiny", **ASKED, **CONFIGS[model]}, "by hand")
    made = prepare(proposal, facts, SweepPlan(models=(model,)))
    assert made.refused is None
    trial = RunTask(RunSpec(ground, made, resources=resources), "run", folder / "run")
    with watched() as seen:
        found = trial(silent)  # type: ignore[arg-type]
    return found.scores, seen


@pytest.mark.parametrize("model", CONFIGS)
def test_resources_reach_the_training_and_the_forecasts_and_change_rounding_alone(
    model: str, tmp_path: Path
) -> None:
    plain, usual = run(model, Resources(), tmp_path / "plain")
    spare = Resources(micro_batch=2, inference_batch=2, gradient_checkpointing=True)
    other, spared = run(model, spare, tmp_path / "spare")
    assert usual.recomputed == 0
    assert spared.recomputed > 0
    assert spared.backward == 2 * usual.backward  # batches of 4
    assert spared.most_rows < usual.most_rows
    for name in ("tune_pct_mae", "tune_pinball", "val_pct_mae", "val_pinball"):
        assert other[name] == pytest.approx(plain[name], rel=ROUNDING[model])
