"""NePS's PriorBand on recorded curves, by its own code in an environment of its own.

    python -m venv NEPS && NEPS/bin/pip install neural-pipeline-search==0.17.0
    python benchmarks/search_efficiency.py replay --neps NEPS/bin/python

Its pins are not ours (pandas 3, botorch), so it answers as a process: this file, run by that
interpreter, asks PriorBand for configs; the replay trains them and tells what came of them. Its
prior is the family's first priority config, of medium confidence.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_replay import Ledger

FIDELITY = "scorings"


@dataclass(slots=True)
class PriorBand:
    """`neps.algorithms.priorband` with defaults, scorings its fidelity; what it sends on goes on
    from where it stood. It is told the best so far on tune, and the config as it was recorded.

    Not frozen: its process, whose imports take seconds, serves all seeds.
    """

    python: str
    base: str = "hyperband"
    process: subprocess.Popen[str] | None = None

    def __call__(self, ledger: Ledger, seed: int) -> None:
        import numpy as np
        from search_replay import priority_configs

        curves = ledger.curves
        prior = priority_configs(curves)[0]
        space = {n: _spec(d, prior[n]) for n, d in curves.space.dimensions.items()}
        reached: dict[str, tuple[int, int]] = {}  # by trial: recorded config, scorings
        answer: dict[str, Any] = {
            "seed": seed, "base": self.base, "space": space, "most": len(curves.steps),
        }  # fmt: skip
        while True:
            asked = self._ask(answer)
            index, had = reached.get(asked["before"], (-1, 0))
            if index < 0:
                index = ledger.nearest(asked["config"])
            until, tune = asked["until"], curves.tune[index]
            for k in range(had, until):
                ledger.pay(k)
                if not np.isfinite(tune[k]):
                    break
            reached[asked["id"]] = (index, until)
            broke = not np.isfinite(tune[:until]).all()
            if until == len(curves.steps) and not broke:
                ledger.finish(index)
            value = 1e6 if broke else float(np.min(tune[:until]))
            answer = {"value": value, "config": dict(curves.configs[index])}

    def _ask(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                [self.python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(answer) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def _spec(d: Any, prior: Any) -> dict[str, Any]:
    from foresweep.space import Choice

    if isinstance(d, Choice):
        return {"choices": list(d.values), "prior": prior}
    return {"low": d.low, "high": d.high, "log": d.log, "step": getattr(d, "step", None),
            "prior": min(max(prior, d.low), d.high)}  # fmt: skip


def serve() -> None:
    """In the other environment: a line in, what to train next out. A line with a seed begins."""
    out, sys.stdout = sys.stdout, sys.stderr
    search: Any = None
    trial: Any = None
    steps: dict[str, tuple[int, int]] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if "seed" in told:
            search, steps = _begun(told)
        else:
            for name, (low, step) in steps.items():
                told["config"][name] = (told["config"][name] - low) // step
            trial.config = {**told["config"], FIDELITY: trial.config[FIDELITY]}
            search.tell(trial, told["value"])
        trial = search.ask()
        config = dict(trial.config)
        until = int(config.pop(FIDELITY))
        for name, (low, step) in steps.items():
            config[name] = low + step * config[name]
        asked = {"id": trial.id, "before": trial.metadata.previous_trial_id}
        print(json.dumps({**asked, "config": config, "until": until}), file=out, flush=True)


def _begun(first: Mapping[str, Any]) -> tuple[Any, dict[str, tuple[int, int]]]:
    """A search, and the whole numbers in it that go by steps: lowest, step."""
    import random

    import neps  # type: ignore[import-not-found, unused-ignore]
    import numpy as np
    import torch

    random.seed(first["seed"])
    np.random.seed(first["seed"])
    torch.manual_seed(first["seed"])
    attributes: dict[str, Any] = {FIDELITY: neps.IntegerFidelity(1, first["most"])}
    steps, how = {}, {"prior_confidence": "medium"}
    for name, d in first["space"].items():
        if "choices" in d:
            values = d["choices"]
            attributes[name] = neps.Categorical(values, prior=values.index(d["prior"]), **how)
        elif d["step"]:
            steps[name] = (d["low"], d["step"])
            most, prior = (d["high"] - d["low"]) // d["step"], (d["prior"] - d["low"]) // d["step"]
            attributes[name] = neps.Integer(0, most, prior=prior, **how)
        else:
            attributes[name] = neps.Float(
                d["low"], d["high"], log=d["log"], prior=d["prior"], **how
            )
    space = type("Space", (neps.PipelineSpace,), attributes)()
    return neps.AskAndTell(neps.algorithms.priorband(space, base=first["base"])), steps


if __name__ == "__main__":
    serve()
