"""The door every model goes through: who brings it, its hyperparameters, train, load, predict.

Shape letters of the whole house: N windows, C context bars, F columns, H bars ahead, Q quantile
levels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from foresweep.data.windows import Context, TrainWindows
from foresweep.errors import (
    ConfigError,
    ForecastError,
    MissingExtra,
    ModelError,
    UnknownName,
    without_prefix,
)

Array: TypeAlias = NDArray[np.float64]
Levels: TypeAlias = tuple[float, ...]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt (malloc.h); 32 MiB is the most it takes for the second."""
MIB = 1024**2

DEFAULT_LEVELS: Levels = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class TrialPruned(Exception):
    """Raised by `report` when the search has seen enough of a trial."""


class TrialPaused(TrialPruned):
    """Raised by `report` when others come first: the trial may go on later, from its state."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Price quantiles of the close after each origin."""

    values: Array  # [N, H, Q] prices, rising in Q
    levels: Levels  # [Q] rising, holds 0.5

    @property
    def median(self) -> Array:
        """[N, H]"""
        return self.values[..., self.levels.index(0.5)]

    def checked(self, num_windows: int, horizon: int) -> Forecast:
        """This forecast, or ForecastError where its shape is wrong or a price is not finite."""
        wanted = (num_windows, horizon, len(self.levels))
        if self.values.shape != wanted:
            raise ForecastError(f"forecast has shape {self.values.shape}, asked for {wanted}")
        bad = int((~np.isfinite(self.values)).any(axis=(1, 2)).sum())
        if bad:
            raise ForecastError(f"{bad} of {num_windows} forecasts are not finite")
        return self


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run may use. May change results by rounding and dropout draws only, so it is no part
    of the config and of no hash."""

    device: str = "cpu"  # a torch device: cpu, cuda, cuda:1, mps
    threads: int = 1  # torch threads of this process
    micro_batch: int | None = None  # windows per backward pass; None: the whole batch at once
    inference_batch: int = 64  # windows per forecast call
    gradient_checkpointing: bool = False


DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(asked: str) -> str:
    """The torch device for `auto`, cpu, cuda, cuda:N or mps; auto is cuda where there is one.

    Raises ConfigError for a device that this machine does not have, MissingExtra where another one
    is asked for without torch.
    """
    if asked == "cpu":  # always there: a baseline's process need not load torch to hear it
        return asked
    try:
        import torch
    except ModuleNotFoundError as error:
        if asked == "auto":  # baselines need none, and what does says so itself
            return "cpu"
        raise MissingExtra("torch", "models") from error

    kind = asked.partition(":")[0]
    if kind not in DEVICES:
        raise ConfigError(f"--device {asked}: give one of {', '.join(DEVICES)} or cuda:N")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(kind, False):
        raise ConfigError(f"--device {asked}: this machine has no {kind}; use --device auto")
    return asked


def on_device(resources: Resources) -> Resources:
    """The resources with `auto` spelt out."""
    return replace(resources, device=pick_device(resources.device))


def bf16_is_fast(device: str) -> bool:
    """Has this torch device units for products in bfloat16? Without them they are slower than in
    float32. CPUs with AVX512_BF16 or AMX, CUDA from compute capability 8.0; not tried on mps."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if kind == "cuda":
        return torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)
    return False


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to 1 GiB, in place of handing it back: glibc maps
    and unmaps every array beyond some 100 KiB anew, and the kernel clears its pages each time, a
    fifth of a tiny Kronos' training and forecasts. The most that is held grew by 12 to 28 of 620
    MiB. Elsewhere than under glibc nothing happens."""
    if platform.libc_ver()[0] == "glibc":
        import ctypes

        libc = ctypes.CDLL(None)
        for option, value in ((MMAP_THRESHOLD, 32 * MIB), (TRIM_THRESHOLD, 1024 * MIB)):
            libc.mallopt(option, value)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of weights with its config and card."""

    path: Path
    model: str
    config: Mapping[str, Any]  # resolved
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """What evaluation found on tune: scores by full name, losses [origins, items] by metric."""

    scores: Mapping[str, float]  # e.g. {"tune_pct_mae": 1.73, "tune_pinball": 0.61}
    losses: Mapping[str, Array]


class Predictor(Protocol):
    """A trained model, ready to forecast. Training hands one to `score`, too."""

    @property
    def context_length(self) -> int:
        """Bars it wants to see; it must accept fewer (masked on the left)."""
        ...

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """Price quantiles of the close, [N, H, Q]. Random draws are a function of (seed, item,
        origin) alone, so that no batch size and no order of windows changes a forecast."""
        ...


Scorer: TypeAlias = Callable[[Predictor], Scored]
"""evaluation's one engine on tune, given to training; models never score themselves."""


class Reporter(Protocol):
    """Training's way to talk: progress at any step; scores and losses at evaluation steps.

    Raises TrialPruned when the search has seen enough, TrialPaused when it may go on later.
    """

    def __call__(
        self,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Array] | None = None,
    ) -> None: ...


def unscored(predictor: Predictor) -> Scored:
    """The scorer of a training that nobody steers: its last step is kept."""
    return Scored({}, {})


def silent(
    step: int, scores: Mapping[str, float], losses: Mapping[str, Array] | None = None
) -> None:
    """The reporter of a training that nobody listens to."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training, as a family is handed it."""

    windows: TrainWindows  # all it may see
    config: Any  # resolved
    resources: Resources = Resources()
    _: KW_ONLY
    seed: int = 0
    horizon: int  # bars ahead that are scored
    score: Scorer = unscored
    report: Reporter = silent
    out: Path  # of the checkpoint: a new folder
    resume: Path | None = None  # `out` of a training that was broken off, to go on from


@dataclass(frozen=True, slots=True)
class Facts:
    """What a sweep fixes before any config is drawn, for `resolve` to check configs against."""

    horizon: int
    max_context: int
    train_bars: int  # whole rows of all items in train: what an epoch is measured by
    step_cap: int | None = None  # the sweep's --max-steps; None: the config's own steps
    fast_bf16: bool = False  # `devices.bf16_is_fast` of the sweep's device
    step_floor: int = 0  # from scratch no fewer, however few an epoch of a small panel takes


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """A stretch of a training with a loss of its own."""

    steps: int
    of: str  # what learns, as a name: tokenizer
    loss: str  # what `train_loss` is there, in words: how well it gives bars back


class ForecastModel(Protocol):
    """One model family. Families know no tracker and no search."""

    name: ClassVar[str]
    Config: ClassVar[type[Any]]  # a pydantic dataclass built with `hyper` fields

    def resolve(self, config: Any, facts: Facts) -> Any:
        """The config with every None filled in: architecture from its size (or from the
        pretrained weights), steps from epochs, capped. This is what is hashed, stored and trained.

        Raises ConfigError for contradictions: a context beyond `max_context`, an architecture
        field beside pretrained weights, a value that would have no effect.
        """
        ...

    # A family whose resolved configs hold more than `max_steps` of how long they train (as Kronos',
    # whose tokenizer gets a share of it) may also have
    #     def longer(self, config: Any, steps: int) -> Any
    # the config of the same training gone on with to `steps`; without it `max_steps` is replaced.
    # A family that trains one net after the other may also have
    #     def stages(self, config: Any) -> Sequence[TrainingStage]
    # of a resolved config, in order, so that pages say where one loss ends and another begins.
    # A family of which `foresweep update` must leave a part as it is may also have
    #     in_update: ClassVar[Mapping[str, Any]]
    # the hyperparameters that an update is trained with, whatever its parent's were.

    def weights_hash(self, config: Any) -> str:
        """sha256 of the pretrained weights a config starts from, "" from scratch.

        Raises WeightsNotFound, naming both ways out."""
        ...

    def train(self, job: TrainingJob) -> Checkpoint:
        """Fit on `job.windows`, keep the best step by tune pinball, write a checkpoint folder to
        `job.out`.

        Raises TrainingDiverged, NotEnoughData, WeightsNotFound; lets TrialPruned pass.
        """
        ...

    def load(self, checkpoint: Checkpoint, resources: Resources) -> Predictor:
        """The predictor of a checkpoint that `checkpoint.read_checkpoint` has verified."""
        ...


# Who brings a family: the entry points of this group, built-ins' and plug-ins' alike.


GROUP = "foresweep.models"
OURS = "foresweep"


@cache
def installed() -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points by the name of the model: more than one is a clash. Raises ModelError."""
    points: dict[str, tuple[EntryPoint, ...]] = {}
    try:
        found = entry_points(group=GROUP)
    except (TypeError, ValueError) as error:  # one broken file takes those of all packages along
        raise ModelError(
            f"the entry points of an installed package cannot be read ({error}); look for an "
            f"entry_points.txt in site-packages that is not NAME = MODULE:CLASS, and reinstall it"
        ) from error
    for point in found:
        key = point.name.strip().lower()
        points[key] = (*points.get(key, ()), point)
    return points


def brought_by(point: EntryPoint) -> str:
    """The package that an entry point comes from."""
    return point.dist.name if point.dist else "an unnamed package"


# Random numbers of a forecast: a function of seed, item and origin alone.
#
# Every window has its own counter-based stream (Philox, Salmon et al. 2011), keyed by a hash of
# what the window is, so that no batch size, no order and no neighbour changes a forecast.


def uniforms(context: Context, *, seed: int, shape: tuple[int, ...]) -> Array:
    """[N, *shape] numbers in [0, 1), each window's own.

    Put the samples first in `shape`: then a forecast with more samples begins with the same ones.
    """
    out = np.empty((len(context), *shape))
    for n, key in enumerate(_keys(context, seed)):
        np.random.Generator(np.random.Philox(key=key)).random(out=out[n])
    return out


def _keys(context: Context, seed: int) -> list[int]:
    """[N] 128-bit keys."""
    origins = context.timestamps[:, -1].astype("datetime64[ns]").astype(np.int64)
    return [
        int.from_bytes(hashlib.sha256(f"{seed}\0{item}\0{at}".encode()).digest()[:16], "big")
        for item, at in zip(context.item_ids, origins, strict=True)
    ]


# Typed configs: what a hyperparameter is, how it is checked, hashed and probed.
#
# A config is a frozen pydantic dataclass whose fields are all made by `hyper`. Unknown keys and
# values out of bounds become ConfigError or UnknownName with the nearest name. Every field declares
# a probe, two values and the setting in which they must lead to different forecasts; the contract
# suite runs it, so a field without effect fails a test.


SCHEMA_VERSION = 2
"""Part of every config hash: raise it when a field changes its meaning."""

Stage = Literal["training", "view", "architecture", "inference", "calibration"]
"""training: matters to the training alone; view: matters to what a model sees, trained or not, and
needs a new training; architecture: fixed by pretrained weights; inference: swept on one checkpoint
without training again; calibration: what is done to its forecasts, fitted on tune."""
WITHOUT_TRAINING: frozenset[Stage] = frozenset({"inference", "calibration"})
"""Stages that need no new training: no part of the train_hash."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """Two values of a field that must change the outcome, and the other fields that let it bite."""

    first: Any
    second: Any
    setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def hyper(
    default: Any,
    doc: str,
    *,
    probe: tuple[Any, Any] | tuple[Any, Any, Mapping[str, Any]],
    unit: str = "",
    stage: Stage = "training",
    **bounds: Any,
) -> Any:
    """A hyperparameter: default, one-line doc, unit, stage, probe, pydantic bounds (ge, le)."""
    extra: Any = {"unit": unit, "stage": stage, "probe": Probe(*probe)}
    return Field(default=default, description=doc, json_schema_extra=extra, **bounds)


config_class = pydantic_dataclass(
    frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid", strict=False)
)
"""Decorator of every Config class."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """What the docs, the CLI and the contract suite know of one field."""

    name: str
    default: Any
    doc: str
    unit: str
    stage: Stage
    probe: Probe


def hyperparameters(config_type: type[Any]) -> tuple[Hyperparameter, ...]:
    """Every field of a Config class, in order; what comes after training last."""
    fields = []
    for f in dataclasses.fields(config_type):
        info: Any = f.default
        extra = info.json_schema_extra
        fields.append(
            Hyperparameter(
                f.name,
                info.default,
                info.description,
                extra["unit"],
                extra["stage"],
                extra["probe"],
            )
        )
    return tuple(sorted(fields, key=lambda h: h.stage == "calibration"))


def make_config(config_type: type[T], values: Mapping[str, Any], *, model: str) -> T:
    """The checked config. Raises UnknownName for a key, ConfigError for a value."""
    names = [f.name for f in dataclasses.fields(config_type)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UnknownName("hyperparameter", key, names, where=f"of {model}")
    try:
        return config_type(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{model}: {_first_line(error)}") from error


def _first_line(error: pydantic.ValidationError) -> str:
    """`lr=-1: input should be greater than 0` for each problem."""
    lines = []
    for e in error.errors():
        what = without_prefix(str(e["msg"]))
        name = ".".join(str(x) for x in e["loc"])
        lines.append(f"{name}={e['input']!r}: {what}" if name else what)
    return "; ".join(lines)


def as_dict(config: Any) -> dict[str, Any]:
    """Flat, JSON-able: what is stored and hashed."""
    return dataclasses.asdict(config)


def config_hash(config: Any, *, model: str, weights_hash: str = "", inference: bool = True) -> str:
    """sha256 of model, schema version, every resolved field and the pretrained weights' hash.

    With `inference=False` the fields of stages WITHOUT_TRAINING are left out: the train_hash.
    """
    fields = {h.name: h for h in hyperparameters(type(config))}
    chosen = {
        k: v
        for k, v in as_dict(config).items()
        if inference or fields[k].stage not in WITHOUT_TRAINING
    }
    text = json.dumps([model, SCHEMA_VERSION, weights_hash, chosen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
