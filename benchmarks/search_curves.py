"""Learning curves of real trainings, recorded once, so that a search can be replayed many times.

Each config is drawn from a family's own space, narrowed so that a training takes seconds, and
trained for real on the demo panel at horizon 5. At each of its eight scorings: pinball on tune, the
same by origin, and pinball on val of the weights that would be deployed if training ended there.

Two families, so that no rule is tuned on what judges it: rules were chosen on Chronos-2's curves,
and judged on Toto's, which were recorded afterwards.
"""

from __future__ import annotations

import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foresweep.data.demo import demo_panel
from foresweep.data.files import read_npz, write_bytes_atomic
from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows, Windows
from foresweep.errors import TrainingDiverged
from foresweep.evaluation.backtest import (
    forecast_part,
    last_value,
    make_scorer,
    naive_part,
    score_part,
)
from foresweep.models.base import Facts, Predictor, Resources, Scored, TrainingJob, make_config
from foresweep.models.registry import get_model
from foresweep.models.training.loop import EVALUATIONS
from foresweep.search.engines.base import origin_means
from foresweep.search.propose.modes import load_space
from foresweep.space import Choice, Dimension, Float, Int, SearchSpace

HORIZON, SEED = 5, 0
STEPS = 128
"""Of a training of Chronos-2; Toto learns what it can here in half of them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is recorded of a family."""

    searched: tuple[str, ...]
    """Of the dimensions of the family's space. Steps are what the search hands out."""
    fixed: Mapping[str, Any]
    usual: Mapping[str, Any]
    """What a priority config has where it says nothing."""


SETTINGS: Mapping[str, Setting] = {
    "chronos2": Setting(
        (
            "lr",
            "batch_size",
            "context_length",
            "warmup_fraction",
            "dropout",
            "target",
            "scaling",
            "patch_size",
        ),
        # covariates treble the time of a training and hardly move its score here
        {"max_steps": STEPS, "covariates": "none"},
        {"context_length": 128, "warmup_fraction": 0.1, "dropout": 0.1, "patch_size": 8}
        | {"target": "overlapping", "scaling": "none", "batch_size": 16, "lr": 1e-3},
    ),
    "toto": Setting(
        (
            "lr",
            "batch_size",
            "context_length",
            "schedule",
            "warmup_fraction",
            "weight_decay",
            "dropout",
            "scaling",
            "sign_flip",
            "loss_type",
            "nll_weight",
            "patch_size",
            "num_components",
        ),
        # one-bar returns would be sampled: ten times the time of a scoring
        {"max_steps": STEPS // 2, "covariates": "none", "target": "overlapping"},
        {"context_length": 128, "warmup_fraction": 0.1, "dropout": 0.0, "patch_size": 8}
        | {"scaling": "none", "batch_size": 16, "lr": 2e-3, "schedule": "cosine"}
        | {"weight_decay": 0.01, "sign_flip": False, "loss_type": "combined"}
        | {"nll_weight": 0.575, "num_components": 4},
    ),
}
MODEL = "chronos2"
"""The family that rules are chosen on."""
KEPT_BITS = 14
"""Of the 24 of a loss by origin: 1 part in 16,000, so that the file stays small."""

Array = NDArray[np.float64]


def recorded_space(model: str = MODEL) -> SearchSpace:
    """What is searched: ranges as in the model's own file, but contexts of 64 to 192 bars."""
    whole = load_space(model, "scratch").space.dimensions
    return SearchSpace(
        {n: whole[n] for n in SETTINGS[model].searched}
        | {"context_length": Int(low=64, high=192, step=32)}
    )


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What was recorded. N configs, S scorings, O origins of tune."""

    about: Mapping[str, Any]
    configs: tuple[Mapping[str, Any], ...]
    steps: tuple[int, ...]  # [S]
    tune: Array  # [N, S] as scored at that step; nan once a training had diverged
    val: Array  # [N, S] of the weights with the best tune so far
    origins: Array  # [N, S, O] losses on tune, means over items
    seconds: Array  # [N] of training and scoring tune
    space: SearchSpace
    model: str = MODEL

    def __len__(self) -> int:
        return len(self.configs)

    def points(self) -> Array:
        """[N, D] the configs in the unit cube."""
        return np.array([coordinates(self.space, c) for c in self.configs])


def coordinates(space: SearchSpace, config: Mapping[str, Any]) -> Array:
    """A config in the unit cube. Values that cannot be ordered have an axis each, so that two of
    them are as far apart as the ends of a range."""
    found: list[float] = []
    for name, d in space.dimensions.items():
        found += _coordinates(d, config[name])
    return np.array(found)


def _coordinates(d: Dimension, value: Any) -> list[float]:
    if isinstance(d, Choice):
        if all(isinstance(v, int | float) for v in d.values):
            return [sorted(d.values).index(value) / (len(d.values) - 1)]
        return [float(value == v) / math.sqrt(2) for v in d.values]
    if isinstance(d, Float | Int) and d.log:
        return [math.log(value / d.low) / math.log(d.high / d.low)]
    return [(value - d.low) / (d.high - d.low)]


def record(model: str, configs: int, out: Path) -> Curves:
    """Train what is still missing of `configs` configs and write `out`. A line of JSON per training
    stands beside it until then: a recording that was stopped goes on where it stood."""
    space, trainings = recorded_space(model), out.with_suffix(".jsonl")
    rng = np.random.default_rng(SEED)
    drawn = [space.sample(rng) for _ in range(configs)]
    done = len(_lines(trainings))
    trainer = _Trainer(model)
    with trainings.open("a") as stream:
        for number, config in enumerate(drawn[done:], done + 1):
            line = trainer(config)
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            print(f"{number:4d} {line['seconds']:6.2f} s  {line['tune'][-1]}", flush=True)
    write_bytes_atomic(out, packed(trainer.about(), _lines(trainings)[:configs]))
    return load(out)


class _Trainer:
    """The demo panel, cut once, and one training after the other on it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.panel = demo_panel()
        self.split = make_split(self.panel, Cut(HORIZON))
        self.train = TrainWindows(self.panel, self.split, self.split.part("train"))
        self.bars = sum(len(self.train.values(i)) for i in range(self.panel.num_items))
        self.score = make_scorer(self.panel, self.split, seed=SEED)
        self.val = Windows(self.panel, self.split, self.split.part("val"))
        self.naive = naive_part(self.val)

    def __call__(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config, trained for real: what a line of the recording says."""
        model, watch = get_model(self.model), _Watch(self)
        fixed = SETTINGS[self.model].fixed
        made = make_config(model.Config, {**config, **fixed}, model=self.model)
        made = model.resolve(made, Facts(HORIZON, self.split.max_context, self.bars))
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                model.train(TrainingJob(
                    self.train, made, Resources(threads=1), seed=SEED, horizon=HORIZON,
                    score=watch, report=_say_nothing, out=Path(folder) / "checkpoint",
                ))  # fmt: skip
            except TrainingDiverged as error:
                print(error, file=sys.stderr)
        seconds = time.perf_counter() - started - watch.aside_s
        return {"config": dict(config), "seconds": round(seconds, 3), **watch.seen}

    def pinball_on_val(self, predictor: Predictor) -> float:
        forecast = forecast_part(predictor, self.val, seed=SEED)
        return float(score_part(forecast, self.val, naive=self.naive).scores["val_pinball"])

    def about(self) -> dict[str, Any]:
        """What a reader must know of the recording."""
        naive = last_value(self.split)
        return {
            "model": self.model,
            "panel": "demo",
            "panel_hash": self.split.cut_hash(self.panel),
            "horizon": HORIZON,
            "seed": SEED,
            "last_value": {
                "tune": float(self.score(naive).scores["tune_pinball"]),
                "val": self.pinball_on_val(naive),
            },
            "space": {name: str(d) for name, d in recorded_space(self.model).dimensions.items()},
            "fixed": SETTINGS[self.model].fixed,
            "versions": {p: version(p) for p in ("foresweep", "torch", "numpy")},
        }


class _Watch:
    """Training's scorer: tune as in every sweep, and beside it val of the weights kept so far,
    which training does not hear of."""

    def __init__(self, trainer: _Trainer) -> None:
        self.trainer = trainer
        self.best, self.val, self.aside_s = math.inf, math.nan, 0.0
        self.seen: dict[str, list[Any]] = {"tune": [], "val": [], "origins": []}

    def __call__(self, predictor: Predictor) -> Scored:
        scored = self.trainer.score(predictor)
        tune = float(scored.scores["tune_pinball"])
        if tune < self.best:
            started = time.perf_counter()
            self.best, self.val = tune, self.trainer.pinball_on_val(predictor)
            self.aside_s += time.perf_counter() - started
        losses = origin_means(scored.losses["pinball"]).tolist()
        for name, value in (("tune", tune), ("val", self.val), ("origins", losses)):
            self.seen[name].append(value)
        return scored


def _say_nothing(*_: Any) -> None:
    """Nobody is told."""


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def packed(about: Mapping[str, Any], lines: list[dict[str, Any]]) -> bytes:
    """The recording as a compressed file of arrays, without pickle."""
    num_origins = len(lines[0]["origins"][0])
    origins = [_full(line["origins"], (EVALUATIONS, num_origins)) for line in lines]
    text = {**about, "configs": [line["config"] for line in lines]}
    arrays = {
        "about": np.frombuffer(json.dumps(text).encode(), dtype=np.uint8),
        "tune": np.array([_full(line["tune"], (EVALUATIONS,)) for line in lines]),
        "val": np.array([_full(line["val"], (EVALUATIONS,)) for line in lines]),
        "origins": _rounded(np.array(origins, dtype=np.float32)),
        "seconds": np.array([line["seconds"] for line in lines], dtype=np.float32),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _full(values: list[Any], shape: tuple[int, ...]) -> Array:
    """Values in an array of this shape; nan for what was not reached."""
    whole = np.full(shape, np.nan)
    if values:
        whole[: len(values)] = values
    return whole


def _rounded(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    """Losses with their last bits cleared."""
    drop = 24 - KEPT_BITS
    bits = losses.view(np.uint32) + np.uint32(1 << (drop - 1))
    return (bits & ~np.uint32((1 << drop) - 1)).view(np.float32)


def load(path: Path) -> Curves:
    """A recording. Raises DataError where the file is missing or broken."""
    arrays = read_npz(path)
    about = json.loads(bytes(arrays["about"]))
    model = about.get("model", MODEL)
    tune = arrays["tune"].astype(float)
    most = about.get("fixed", {}).get("max_steps", STEPS)
    steps = tuple(math.ceil(most * k / EVALUATIONS) for k in range(1, EVALUATIONS + 1))
    return Curves(
        about=about,
        configs=tuple(about["configs"]),
        steps=steps,
        tune=tune,
        val=arrays["val"].astype(float),
        origins=arrays["origins"].astype(float),
        seconds=arrays["seconds"].astype(float),
        space=recorded_space(model),
        model=model,
    )
