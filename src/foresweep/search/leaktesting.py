"""Every model of a sweep is tested for leaks before it is trained."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from foresweep.errors import LeakFound, WorkerDied
from foresweep.search.engine import TaskFailed, run_task
from foresweep.search.events import LeakTested
from foresweep.search.stage import Stage
from foresweep.search.trial import LeakTest, Prepared


@dataclass(slots=True)
class LeakTests:
    """What became of the test of each model. Not frozen: a model is tested when first met."""

    stage: Stage
    sweep_id: str
    causes: dict[str, str] = field(default_factory=dict)

    def test_all(self, configs: Sequence[Prepared]) -> None:
        """Test every model of these. Raises LeakFound."""
        for model in dict.fromkeys(p.proposal.model for p in configs):
            self.causes[model] = self._untestable([p for p in configs if p.proposal.model == model])

    def cause(self, config: Prepared) -> str:
        """Why a config must not be trained; "" where its model has passed. Raises LeakFound."""
        model = config.proposal.model
        if model not in self.causes:  # all of its first configs had been trained before
            self.causes[model] = self._untestable([config])
        return self.causes[model]

    def _untestable(self, configs: Sequence[Prepared]) -> str:
        """Why no config of a model could be tested for leaks; "" once one has passed.

        What was not tested is not trained: its trials go on record as failed with this cause. A
        config that trains goes first: it says more than weights as they are.
        """
        cause = ""
        for config in sorted(configs, key=lambda p: p.config.get("finetune") == "none"):
            cause = self._test(config)
            if not cause:
                break
        return cause

    def _test(self, config: Prepared) -> str:
        """One short training; "" where it passed, else why it could not be done.

        Raises LeakFound: no score of such a model means anything.
        """
        stage, model = self.stage, config.proposal.model
        out = stage.runs_dir / f".leaktest-{self.sweep_id}-{model}"
        started = time.perf_counter()
        task = LeakTest(
            stage.ground, model, config.config, stage.plan.resources, stage.plan.seed, out
        )
        try:
            run_task(stage.engine, task, log=out / "training.log")
        except TaskFailed as error:
            if error.failed.kind == LeakFound.__name__:
                raise LeakFound(f"{model}: {error}; its scores would mean nothing") from error
            return f"the leak test could not be done: {error.failed.traceback}"
        except WorkerDied as error:
            return f"the leak test could not be done: {error}"
        finally:
            shutil.rmtree(out, ignore_errors=True)
        stage.listen(LeakTested(model, time.perf_counter() - started))
        return ""
