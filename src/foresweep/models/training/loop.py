"""The one training loop of all families, the states it can go on from, and what it costs."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foresweep.errors import CheckpointError, TrainingDiverged
from foresweep.models.base import (
    Checkpoint,
    Predictor,
    Resources,
    Scored,
    TrainingJob,
    TrialPaused,
    as_dict,
    keep_freed_memory,
    unscored,
)
from foresweep.models.checkpoint import write_checkpoint
from foresweep.models.training.config import TINY_STEPS, TrainingConfig
from foresweep.models.training.optimisation import (
    Average,
    Decays,
    adamw,
    every_parameter,
    half_precision,
    learning_rate,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


EVALUATIONS = 8
"""Rolling-origin scorings on tune in one training, evenly spaced, the last at the end."""
STILL_LEARNS = 0.01
"""Fall of the steering pinball over the last quarter of the steps from which on a training whose
kept step is its last counts as ended too early. On daily prices it is below half of that, on a sine
after too few steps 3 to 30 times as much."""
REPORT_EVERY_S = 0.25
"""Progress between two evaluations is reported at most this often."""


class Learner(Protocol):
    """What the loop needs from a family."""

    module: nn.Module
    """Parameters with requires_grad are trained; the whole state dict is kept."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """`size` training windows, as a tuple of tensors with the window axis first."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Scalar: mean loss over the windows of the batch.

        Called inside `optimisation.half_precision`; `optimisation.float32` leaves it."""
        ...

    def predictor(self) -> Predictor:
        """A predictor over the live module (the loop sees to eval mode and random state)."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a training."""

    step: int  # the kept step, 0 where nothing was trained
    best: float  # its tune pinball (nan when trained without a scorer)
    final_loss: float  # training loss, mean of the last tenth (nan where nothing was trained)
    still_learning: bool = False  # the kept step is the last, and the pinball still fell


def fit(
    learner: Learner, job: TrainingJob, *, first_step: int = 0, decays: Decays = every_parameter
) -> Fitted:
    """Train `learner.module` in place for `job.config.max_steps` and leave the kept step in it.

    The kept step is the best by tune pinball over `EVALUATIONS` rolling-origin scorings, never
    step 0; of an unscored job, the last. `first_step` shifts reported steps (a second stage);
    `decays` says which parameters weight decay is for.

    With `finetune` none no step is taken: the module is scored and reported once, at step 0.
    With `ema_decay` the averaged weights are what is scored and kept. With `patience` training
    ends after so many scorings in a row that were no better than the best.

    At each evaluation, after it was reported, everything needed to go on exactly is written beside
    `job.out` (`state_file`); `job.resume` is the `out` of the attempt to go on from, and without a
    state of this stage there training starts at the beginning. `finish` removes them.

    Raises TrainingDiverged with step and learning rate; lets TrialPruned pass, and TrialPaused once
    the state is written.
    """
    if job.config.finetune == "none":
        return _only_score(learner, job, first_step)
    with seeded(job.seed, job.resources):
        run = _Run(learner, job, decays)
        if job.resume is not None:
            run.restore(state_file(job.resume, first_step))
        evaluate_at = _evaluation_steps(run.total)
        while not run.done:
            run.advance(first_step)
            if run.step in evaluate_at:
                scored = run.evaluate()
                scores = {**run.shown(), **(scored.scores if scored else {})}
                try:
                    job.report(first_step + run.step, scores, scored.losses if scored else None)
                except TrialPaused:
                    run.save(state_file(job.out, first_step))
                    raise
                run.save(state_file(job.out, first_step))
            elif run.due():
                job.report(first_step + run.step, run.shown())
        run.keep_best()
    tail = run.losses[-max(1, run.total // 10) :]
    step = run.best_step or run.step
    return Fitted(first_step + step, run.best, float(np.mean(tail)), run.still_learning)


def _only_score(learner: Learner, job: TrainingJob, first_step: int) -> Fitted:
    """Zero-shot: the module as it is, scored once."""
    module = learner.module.to(job.resources.device).eval()
    if job.score is unscored:
        return Fitted(0, math.nan, math.nan)
    with seeded(job.seed, job.resources), inference(module, job.resources):
        scored = job.score(learner.predictor())
    job.report(first_step, scored.scores, scored.losses)
    return Fitted(0, float(scored.scores["tune_pinball"]), math.nan)


def finish(
    job: TrainingJob,
    model: str,
    fitted: Fitted,
    *,
    weights: Mapping[str, Tensor],
    network: Mapping[str, Any],
    **more: Any,
) -> Checkpoint:
    """Write the checkpoint of a training that has ended, and remove the states it could have been
    resumed from, unless it is still learning: then somebody may want to go on.

    Its card says `horizon`, `seed`, `fitted`, the `network` as whoever loads it must build it, and
    whatever `more` a family tells. Raises CheckpointError.
    """
    card = {"horizon": job.horizon, "seed": job.seed, "network": network, "fitted": asdict(fitted)}
    checkpoint = write_checkpoint(
        job.out,
        model=model,
        config=as_dict(job.config),
        weights={k: v.detach().cpu().numpy() for k, v in weights.items()},
        card={**card, **more},
    )
    if not fitted.still_learning:
        clear_states(job.out)
    return checkpoint


@contextmanager
def seeded(seed: int, resources: Resources) -> Iterator[None]:
    """Torch seeded, deterministic and on `resources.threads` threads inside; as before after.

    Wrap building a module in it, too: random initialisation is part of what a seed fixes.
    """
    import torch
    from torch.utils import deterministic as memory

    keep_freed_memory()
    devices = [resources.device] if resources.device.startswith("cuda") else []
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_num_threads(resources.threads)
        torch.use_deterministic_algorithms(resources.device == "cpu")
        # an aid for debugging, not for determinism; it costs about 1 % of a tiny step
        memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            memory.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.set_num_threads(threads)


class _Run:
    """The moving parts of one training."""

    def __init__(self, learner: Learner, job: TrainingJob, decays: Decays) -> None:
        self.learner, self.score = learner, job.score
        self.config: TrainingConfig = job.config
        self.resources = resources = job.resources
        self.total = self.config.max_steps or TINY_STEPS
        self.module = learner.module.to(resources.device).train()
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = adamw(self.module, self.config, resources, decays)
        decay = self.config.ema_decay
        self.average = None if decay is None else Average(self.module, decay)
        self.rng = np.random.default_rng([job.seed, 1])
        self.step, self.lr = 0, 0.0
        self.losses: list[float] = []
        self.best, self.best_step = math.nan, 0
        self.waited = 0  # scorings since the best
        self.scorings: list[float] = []  # pinballs
        self.best_state: dict[str, Tensor] = {}
        self._reported = -math.inf

    @property
    def done(self) -> bool:
        """Have all steps been taken, or has patience run out?"""
        patience = self.config.patience
        return self.step >= self.total or (patience is not None and self.waited >= patience)

    def advance(self, first_step: int) -> None:
        """One optimiser step. Raises TrainingDiverged."""
        import torch

        self.lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward()
        self.step += 1
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"loss is {loss} at step {first_step + self.step} (lr {self.lr:.3g}); "
                f"use a smaller lr or a smaller gradient_clip"
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.step)
        self.losses.append(loss)

    def _backward(self) -> float:
        """Gradients of the mean loss over the whole batch, a micro-batch at a time; that mean."""
        batch = self.learner.draw(self.rng, self.config.batch_size)
        size, total = len(batch[0]), 0.0
        chunk = self.resources.micro_batch or size
        for start in range(0, size, chunk):
            part = tuple(t[start : start + chunk].to(self.resources.device) for t in batch)
            with half_precision(self.config, self.resources.device):
                loss = self.learner.loss(part) * (len(part[0]) / size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def evaluate(self) -> Scored | None:
        """Score the live module on tune, and remember it where it is the best so far."""
        if self.score is unscored:
            return None
        with self._averaged(), inference(self.module, self.resources):
            scored = self.score(self.learner.predictor())
            pinball = float(scored.scores["tune_pinball"])
            self.waited += 1
            self.scorings.append(pinball)
            if math.isfinite(pinball) and not pinball >= self.best:
                self.best, self.best_step, self.waited = pinball, self.step, 0
                self.best_state = {k: v.detach().clone() for k, v in self._state().items()}
        return scored

    @property
    def still_learning(self) -> bool:
        """Is the kept step the last, after a quarter of the steps in which the pinball fell?"""
        if self.best_step != self.step or len(self.scorings) < 3:
            return False
        before = self.scorings[-1 - EVALUATIONS // 4]
        return not self.best > (1 - STILL_LEARNS) * before

    def keep_best(self) -> None:
        """Put the best scored weights back; without any, the last (averaged) ones stay."""
        if self.best_step:
            self.module.load_state_dict(self.best_state)
        elif self.average is not None:
            self.module.load_state_dict(self.average.values, strict=False)
        self.module.eval()

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.in_place()

    def shown(self) -> dict[str, float]:
        """What every report carries."""
        return {"train_loss": self.losses[-1], "lr": self.lr}

    def due(self) -> bool:
        """Is it time for a light report?"""
        now = time.monotonic()
        if now - self._reported < REPORT_EVERY_S:
            return False
        self._reported = now
        return True

    def _state(self) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = self.module.state_dict()
        return state

    def save(self, file: Path) -> None:
        """Write everything that `restore` needs."""

        average = {} if self.average is None else self.average.values
        tensors = pack(
            self._state(), self.best_state, average, self.optimizer, self.resources.device
        )
        numbers = {
            "step": self.step,
            "losses": self.losses,
            "best": None if math.isnan(self.best) else self.best,
            "best_step": self.best_step,
            "waited": self.waited,
            "scorings": self.scorings,
            "rng": self.rng.bit_generator.state,
        }
        write_state(file, tensors, numbers)

    def restore(self, file: Path) -> None:
        """Go on from a state file; without one, stay at the beginning. Raises CheckpointError."""

        stored = read_state(file)
        if stored is None:
            return
        tensors, numbers = stored
        self.best_state, average = unpack(
            tensors, self.module, self.optimizer, self.resources.device
        )
        if self.average is not None:
            self.average.restore(average)
        self.step, self.losses = numbers["step"], numbers["losses"]
        self.waited, self.scorings = numbers.get("waited", 0), numbers.get("scorings", [])
        self.best = math.nan if numbers["best"] is None else numbers["best"]
        self.best_step = numbers["best_step"]
        self.rng.bit_generator.state = numbers["rng"]


@contextmanager
def inference(module: nn.Module, resources: Resources) -> Iterator[None]:
    """Eval mode, no gradients, and the random state untouched; the mode as before after."""
    import torch

    keep_freed_memory()
    devices = [resources.device] if resources.device.startswith("cuda") else []
    was_training = module.training
    module.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _evaluation_steps(total: int) -> frozenset[int]:
    """Steps after which tune is scored: evenly spaced, the last one the end."""
    return frozenset(math.ceil(total * k / EVALUATIONS) for k in range(1, EVALUATIONS + 1))


# Training states: what an interrupted training needs to go on exactly where it stood.
#
# One safetensors file a stage, beside the checkpoint folder to be (`<out>.state/`), replaced in one
# rename; the numbers stand as JSON in its header. It outlives the death of the process, not a power
# cut: a lost state costs time, never truth.


def state_file(out: Path, first_step: int) -> Path:
    """Where the stage that begins at `first_step` keeps its state."""
    return out.with_name(out.name + ".state") / f"{first_step}.safetensors"


def has_states(out: Path) -> bool:
    """Did a training leave something to go on from?"""
    return any(state_file(out, 0).parent.glob("*.safetensors"))


def clear_states(out: Path) -> None:
    """Remove the states of a training whose checkpoint is written."""
    shutil.rmtree(state_file(out, 0).parent, ignore_errors=True)


def adopt_states(earlier: Iterable[Path], out: Path) -> Path | None:
    """Take over what the newest of some attempts (their `out`, newest first) left to go on from.

    The states of all its stages stand beside `out` afterwards, whole or not at all, so that the
    attempt after this one needs no other. Gives back the attempt they are of; None: none left any.
    Raises CheckpointError where they cannot be copied.
    """
    target = state_file(out, 0).parent
    for attempt in earlier:
        source = state_file(attempt, 0).parent
        if attempt == out or not has_states(attempt):
            continue
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise CheckpointError(
                f"cannot copy training state {source} to {target}: {error.strerror}"
            ) from error
        return attempt
    return None


def pack(
    state: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    device: str,
) -> dict[str, Tensor]:
    """Weights, best and averaged weights, optimiser moments and torch's random state, by name."""
    import torch

    out = {f"model/{k}": v for k, v in state.items()}
    out |= {f"best/{k}": v for k, v in best.items()}
    out |= {f"average/{k}": v for k, v in average.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        out |= {f"optimizer/{index}/{k}": v for k, v in slots.items()}
    out["rng/cpu"] = torch.get_rng_state()
    if device.startswith("cuda"):
        out["rng/cuda"] = torch.cuda.get_rng_state(device)
    return {k: v.detach().cpu().clone() for k, v in out.items()}


def unpack(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Put a packed state back in place; best and averaged weights are returned."""
    import torch

    try:
        module.load_state_dict(_under(tensors, "model/"))
    except RuntimeError as error:
        raise CheckpointError(
            f"the training state to resume from is another architecture's: {error}"
        ) from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer/").items():
        index, _, key = name.partition("/")
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    torch.set_rng_state(tensors["rng/cpu"])
    if device.startswith("cuda") and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"], device)
    best, average = _under(tensors, "best/"), _under(tensors, "average/")
    return {k: v.to(device) for k, v in best.items()}, average


def write_state(file: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Replace the state file. Raises CheckpointError where it cannot be written."""
    from safetensors.torch import save_file

    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), temporary, metadata={"numbers": json.dumps(numbers)})
        os.replace(temporary, file)
    except OSError as error:
        raise CheckpointError(f"cannot write training state {file}: {error.strerror}") from error


def read_state(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and numbers, None where there is no such file. Raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
            return tensors, json.loads(stored.metadata()["numbers"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not a training state: {error}") from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# What a training costs, seen from outside: steps as they end, networks as they stand.
#
# Works for any family that trains with torch, a plug-in's too: it looks at optimisers and networks,
# not at families.


DEEPEST = 3
"""Levels of attributes in which a predictor's networks are looked for."""


@dataclass(slots=True)
class OptimizerSteps:
    """The steps of one optimiser."""

    trained_parameters: int
    ends: list[float] = field(default_factory=list)  # seconds, of each step

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the steps after the first, which pays for what is set up once; now and then
        a state is written between two of them, which the median does not see."""
        gaps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        return median(gaps) if gaps else None


@contextmanager
def watched_steps() -> Iterator[list[OptimizerSteps]]:
    """Inside, every step of every torch optimiser is noted; one stage an optimiser, in order."""
    from torch.optim import Optimizer
    from torch.optim.optimizer import register_optimizer_step_post_hook

    by_optimizer: dict[int, OptimizerSteps] = {}
    alive = []  # keeps an optimiser's identity from being taken by the next

    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) not in by_optimizer:
            groups = optimizer.param_groups
            count = sum(p.numel() for g in groups for p in g["params"])
            by_optimizer[id(optimizer)] = OptimizerSteps(count)
            stages.append(by_optimizer[id(optimizer)])
            alive.append(optimizer)
        by_optimizer[id(optimizer)].ends.append(time.perf_counter())

    stages: list[OptimizerSteps] = []
    handle = register_optimizer_step_post_hook(note)
    try:
        yield stages
    finally:
        handle.remove()


def count_parameters(predictor: object) -> int:
    """Parameters of all networks that a predictor holds, each once."""
    every = {id(p): p.numel() for module in _networks(predictor) for p in module.parameters()}
    return sum(every.values())


def peak_device_memory_mb(device: str) -> float | None:
    """MiB that this process held on a CUDA device at most; None on others."""
    import torch

    if not device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated(torch.device(device)) / 2**20


def _networks(holder: object, depth: int = DEEPEST) -> Iterator[nn.Module]:
    from torch import nn

    if isinstance(holder, nn.Module):
        yield holder
    elif depth:
        for value in _held(holder):
            yield from _networks(value, depth - 1)


def _held(holder: object) -> list[Any]:
    """What an object's attributes, or a tuple, list or mapping, hold."""
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, list | tuple):
        return list(holder)
    if is_dataclass(holder):
        return [getattr(holder, f.name) for f in fields(holder)]
    return list(getattr(holder, "__dict__", {}).values())
