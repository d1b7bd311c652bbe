"""What a trial costs beside its training: proposing, putting on record, telling.

The objective is trivial and computed in this process: what a worker process costs is measured in
models_workers.py. Ours is what the head of a sweep does for a trial: ask the sampler, put trial and
run on record, log one scoring, close the run with 15 scores, tell the sampler. Optuna's is its own
loop on SQLite (RDB storage) with one report and the same 15 numbers as user attributes, and without
them. Ray Tune's is a run of its Tuner with one trial at a time and the same 15 numbers, from the
end of one trial to the end of the next: a fresh actor a trial (its default), and used again.

    python benchmarks/overhead.py [--trials 200]
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.records import Run
from foresweep.search.propose.modes import Proposal, load_space
from foresweep.search.propose.tpe import Sampler, Told, TpeSampler, told_of
from foresweep.space import Float, Int, SearchSpace
from foresweep.tracker.tracker import Tracker

LAST = 50
"""Trials at the end whose median is reported: a study grows slower as it grows."""
SCORES = 15
FRESH = 8
"""Trials of Ray Tune with a fresh actor each: they take seconds."""


def objective(config: Mapping[str, Any]) -> float:
    return abs(math.log10(config["lr"]) + 3) + config["dropout"]


def ours(folder: Path, sampler: Sampler, trials: int) -> tuple[list[float], list[float]]:
    """(seconds a trial, seconds of it in the sampler)."""
    whole, asking = [], []
    with Tracker(folder / "sweeps.db") as tracker:
        sweep = tracker.create_sweep(
            models=["chronos2"], mode="smart", objective="pinball", horizon=5, seed=0,
            panel_hash="p", task_hash="t", fingerprints={"tune": "a", "val": "b"}, plan={},
        )  # fmt: skip
        for number in range(1, trials + 1):
            started = time.perf_counter()
            proposal = sampler.ask(number)
            assert proposal is not None
            asked = time.perf_counter()
            run = _on_record(tracker, sweep.sweep_id, proposal)
            recorded = time.perf_counter()
            sampler.tell(told_of(run, tracker, ("pinball",), sweep_id=sweep.sweep_id))
            ended = time.perf_counter()
            whole.append(ended - started)
            asking.append(asked - started + ended - recorded)
    return whole, asking


def _on_record(tracker: Tracker, sweep_id: str, proposal: Proposal) -> Run:
    name = f"{hash(str(proposal.config)):x}"
    common = {"model": "chronos2", "config_hash": name, "train_hash": name}
    tracker.heads.pulse(sweep_id)
    trial = tracker.heads.claim_trial(sweep_id, config=proposal.config, source="smart", **common)
    assert trial is not None
    run = tracker.start_run(
        hyperparams=proposal.config, sweep_id=sweep_id, trial_number=trial.number, seed=0,
        fingerprints={"tune": "a", "val": "b"}, source="smart", **common,
    )  # fmt: skip
    value = objective(proposal.config)
    tracker.log(run.run_id, 1, {"tune_pinball": value})
    scores = {f"val_metric_{k}": value for k in range(SCORES - 1)}
    return tracker.finish_run(run.run_id, "complete", scores={"tune_pinball": value, **scores})


def optunas(folder: Path, space: SearchSpace, trials: int, *, kind: str, attrs: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}", sampler=made[kind](seed=0)
    )
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        trial = study.ask()
        config = {name: _suggest(trial, name, d) for name, d in space.dimensions.items()}
        value = objective(config)
        trial.report(value, 1)
        for k in range(attrs):
            trial.set_user_attr(f"val_metric_{k}", value)
        study.tell(trial, value)
        seconds.append(time.perf_counter() - started)
    return seconds


def ray_tunes(folder: Path, space: SearchSpace, trials: int, *, reuse: bool) -> list[float]:
    """Seconds between the ends of trials that follow each other."""
    import ray
    from ray import tune

    ended: list[float] = []

    class Ends(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    def trainable(config: dict[str, Any]) -> None:
        value = objective(config)
        tune.report(
            {"tune_pinball": value, **{f"val_metric_{k}": value for k in range(SCORES - 1)}}
        )

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        tuner = tune.Tuner(
            trainable,
            param_space={n: _ray_range(d) for n, d in space.dimensions.items()},
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=str(folder), callbacks=[Ends()], verbose=0),
        )
        tuner.fit()
    finally:
        ray.shutdown()
    return [b - a for a, b in itertools.pairwise(ended)]


def _ray_range(dimension: Any) -> Any:
    from ray import tune

    if isinstance(dimension, Float):
        draw = tune.loguniform if dimension.log else tune.uniform
        return draw(dimension.low, dimension.high)
    if isinstance(dimension, Int):
        return tune.randint(dimension.low, dimension.high + 1)
    return tune.choice(list(dimension.values))


def _suggest(trial: Any, name: str, dimension: Any) -> Any:
    if isinstance(dimension, Float):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Int):
        return trial.suggest_int(name, dimension.low, dimension.high, step=dimension.step)
    return trial.suggest_categorical(name, dimension.values)


def milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds[-LAST:]):.1f}"


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


def measure(trials: int) -> None:
    space = load_space("chronos2", "scratch").space
    rng = np.random.default_rng(0)
    random = [Proposal("chronos2", space.sample(rng), "random") for _ in range(trials)]
    tpe = TpeSampler("chronos2", space, objectives=("pinball",), base={}, seed=0)
    rows: list[tuple[str, str, str]] = []
    for name, sampler in (("random", Listed(random)), ("tpe", tpe)):
        whole, asking = _within(lambda f, s=sampler: ours(f, s, trials))
        rest = [w - a for w, a in zip(whole, asking, strict=True)]
        rows.append((f"foresweep, {name}", milliseconds(whole), milliseconds(rest)))
    for kind in ("random", "tpe"):
        for attrs in (0, SCORES - 1):
            said = f"Optuna RDB, {kind}" + (f", {attrs} user attributes" if attrs else "")
            found = _within(lambda f, k=kind, a=attrs: optunas(f, space, trials, kind=k, attrs=a))
            rows.append((said, milliseconds(found), ""))
    for reuse in (False, True):
        said = "Ray Tune, random" + (", actors used again" if reuse else "")
        few = trials if reuse else min(trials, FRESH)
        found = _within(lambda f, n=few, r=reuse: ray_tunes(f, space, n, reuse=r))
        rows.append((said, milliseconds(found), ""))
    load = os.getloadavg()[0]
    print(f"median ms of the last {LAST} of {trials} trials, load {load:.1f}")
    for name, whole_ms, rest_ms in rows:
        print(f"  {name:42s} {whole_ms:>8s}" + (f"  without sampler {rest_ms}" if rest_ms else ""))


def _within(work: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return work(Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    warnings.simplefilter("ignore")
    measure(parser.parse_args().trials)
