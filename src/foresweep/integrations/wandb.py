"""Runs repeated to Weights & Biases, offline (a folder to sync later) or online."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import wandb

from foresweep.integrations.mirror import WandbMode, facts_of, shown_scores
from foresweep.records import Run, RunState

PROJECT = "foresweep"
LONGEST_ID, LONGEST_TAG = 128, 64
INIT_S = 30.0


class WandbMirror:
    """Runs of a project (WANDB_PROJECT, else `foresweep`), grouped by sweep.

    W&B is kept from looking around by itself: the command line, the code, the terminal and the
    environment stay here, since they may hold secrets. Raises whatever W&B raises.
    """

    def __init__(self, mode: WandbMode = "online") -> None:
        self._mode = mode
        self._open: dict[str, Any] = {}

    def has(self, run: Run) -> bool:
        """Never known without asking the server: a run that is sent again keeps its id there."""
        return False

    def start(self, run: Run) -> None:
        self._open[run.run_id] = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=_id(run.run_id),
            name=run.run_id,
            group=run.sweep_id,
            job_type=run.model_name[:LONGEST_TAG],
            config={**run.hyperparams, "model_name": run.model_name},
            tags=[tag[:LONGEST_TAG] for tag in run.tags],
            notes=run.notes,
            mode=self._mode,
            dir=os.environ.get("WANDB_DIR") or os.getcwd(),
            resume="allow",
            reinit="create_new",
            settings=_settings(),
        )

    def log(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        self._open[run.run_id].log(shown_scores(scores), step=step)

    def finish(self, run: Run) -> None:
        there = self._open.pop(run.run_id)
        there.summary.update(shown_scores(run.metrics) | facts_of(run))
        there.finish(exit_code=0 if run.state == RunState.COMPLETE else 1)

    def close(self) -> None:
        for there in self._open.values():
            there.finish(exit_code=1)
        self._open.clear()


def _id(run_id: str) -> str:
    """W&B takes no `/\\#?%:` in ids."""
    return re.sub(r"[/\\#?%:]", "-", run_id)[:LONGEST_ID]


def _settings() -> Any:
    return wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        init_timeout=INIT_S,
        x_disable_meta=True,
        x_disable_stats=True,
    )
