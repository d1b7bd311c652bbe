"""The one training loop of all three families, and the hyperparameters they share."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from foresweep.errors import ConfigError, TrainingDiverged
from foresweep.models.base import Facts, Predictor, Reporter, Resources, Scored, Scorer
from foresweep.models.config import config_class, hyper

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

EVALUATIONS = 8
"""Rolling-origin scorings on tune in one training, evenly spaced, the last at the end."""
TINY_STEPS, DEFAULT_STEPS = 300, 1000
"""Optimiser steps when neither max_steps nor max_epochs is given: tiny from scratch, and others."""
REPORT_EVERY_S = 0.25
"""Progress between two evaluations is reported at most this often."""
BETAS = (0.9, 0.999)
WSD_DECAY = 0.2


@config_class
class TrainingConfig:
    """Hyperparameters that every trained family shares; families inherit and add their own."""

    pretrained: str | None = hyper(
        None,
        "weights to start from: published, a Hugging Face id or a folder; none: from scratch",
        probe=(None, None),
    )
    size: Literal["tiny", "small", "base"] | None = hyper(
        "tiny", "architecture when training from scratch", probe=("tiny", "small")
    )
    context_length: int = hyper(
        128, "bars seen up to the origin", unit="bars", probe=(64, 128), ge=16
    )
    lr: float = hyper(1e-3, "peak learning rate of AdamW", probe=(1e-3, 3e-3), gt=0, le=1)
    batch_size: int = hyper(16, "windows per optimiser step", unit="windows", probe=(8, 16), ge=1)
    max_steps: int | None = hyper(None, "optimiser steps", unit="steps", probe=(4, 8), ge=1)
    max_epochs: int | None = hyper(
        None,
        "passes over the training bars, in place of max_steps",
        unit="epochs",
        probe=(1, 2, {"max_steps": None}),
        ge=1,
    )
    warmup_fraction: float = hyper(
        0.1, "share of the steps spent warming up", probe=(0.0, 0.5), ge=0, lt=1
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = hyper(
        "cosine",
        "learning rate after warm-up (wsd: stable, then decay over the last fifth)",
        probe=("cosine", "constant"),
    )
    weight_decay: float = hyper(0.01, "AdamW weight decay", probe=(0.0, 10.0), ge=0)
    gradient_clip: float = hyper(1.0, "largest gradient norm", probe=(0.01, 100.0), gt=0)


C = TypeVar("C", bound=TrainingConfig)


def resolve_training(
    config: C, facts: Facts, *, window_bars: int | None = None, default_steps: int | None = None
) -> C:
    """The config with its steps settled: `max_steps` set, `max_epochs` turned into it.

    One epoch is as many steps as it takes for the drawn windows to hold the bars of train once:
    ceil(train_bars / (batch_size * window_bars)), where `window_bars` is what one window teaches
    (default: context_length). `facts.step_cap` caps either.

    Raises ConfigError when both max_steps and max_epochs are given, when the context is longer
    than the sweep allows, and when `size` stands beside pretrained weights.
    """
    if config.max_steps is not None and config.max_epochs is not None:
        raise ConfigError(
            f"max_steps={config.max_steps} and max_epochs={config.max_epochs} exclude each other; "
            f"give one"
        )
    if config.context_length > facts.max_context:
        raise ConfigError(
            f"context_length={config.context_length} is more than this sweep's max_context "
            f"{facts.max_context}; use at most {facts.max_context} or raise --max-context"
        )
    if config.pretrained is not None and config.size is not None:
        raise ConfigError(
            f"size={config.size!r} has no effect with pretrained={config.pretrained!r}, whose "
            f"weights fix the architecture; leave size out (null)"
        )
    steps = config.max_steps or default_steps
    if steps is None:
        steps = TINY_STEPS if config.size == "tiny" else DEFAULT_STEPS
    if config.max_epochs is not None:
        bars = config.batch_size * (window_bars or config.context_length)
        steps = config.max_epochs * math.ceil(facts.train_bars / bars)
    capped = min(steps, facts.step_cap or steps)
    settled: C = dataclasses.replace(config, max_steps=capped, max_epochs=None)  # type: ignore[type-var]
    return settled


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of the optimiser step after `step` finished ones.

    The factors are those of transformers' `get_scheduler` (linear warm-up; wsd with a linear decay
    over the last fifth), written out: a pure function of the step needs no state to resume.
    """
    total = config.max_steps or 1
    warmup = int(config.warmup_fraction * total)
    if step < warmup:
        return config.lr * step / warmup
    done = (step - warmup) / max(1, total - warmup)
    if config.schedule == "linear":
        return config.lr * (1 - done)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "wsd":
        decay = min(max(1, int(WSD_DECAY * total)), total - warmup)
        return config.lr * min(1.0, (total - step) / decay)
    return config.lr


class Learner(Protocol):
    """What the loop needs from a family."""

    module: nn.Module
    """Parameters with requires_grad are trained; the whole state dict is kept."""

    def draw(self, rng: np.random.Generator, size: int) -> Any:
        """`size` training windows, as a tuple of tensors with the window axis first."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Scalar: mean loss over the windows of the batch."""
        ...

    def predictor(self) -> Predictor:
        """A predictor over the live module (the loop sees to eval mode and random state)."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a training."""

    step: int  # the kept step
    best: float  # its tune pinball (nan when trained without a scorer)
    final_loss: float  # training loss, mean of the last tenth


def fit(
    learner: Learner,
    config: TrainingConfig,
    resources: Resources,
    *,
    seed: int,
    report: Reporter,
    score: Scorer | None = None,
    out: Path,
    resume: Path | None = None,
    first_step: int = 0,
) -> Fitted:
    """Train `learner.module` in place for `config.max_steps` and leave the kept step in it.

    The kept step is the best by tune pinball over `EVALUATIONS` rolling-origin scorings, never
    step 0; without `score`, the last. `first_step` shifts reported steps (a second stage).

    At each evaluation, after it was reported, everything needed to go on exactly is written beside
    `out` (`training_state.state_file`); `resume` is the `out` of the attempt to go on from, and
    without a state of this stage there training starts at the beginning. Once the checkpoint is
    written, `training_state.clear_states(out)` removes them.

    Raises TrainingDiverged with step and learning rate; lets TrialPruned pass.
    """
    from foresweep.models import training_state as states

    with seeded(seed, resources):
        run = _Run(learner, config, resources, seed)
        if resume is not None:
            run.restore(states.state_file(resume, first_step))
        evaluate_at = _evaluation_steps(run.total)
        while run.step < run.total:
            run.advance(first_step)
            shown = {"train_loss": run.losses[-1], "lr": run.lr}
            if run.step in evaluate_at:
                scored = run.evaluate(score)
                scores = {**shown, **(scored.scores if scored else {})}
                report(first_step + run.step, scores, scored.losses if scored else None)
                run.save(states.state_file(out, first_step))
            elif run.due():
                report(first_step + run.step, shown)
        run.keep_best()
    tail = run.losses[-max(1, run.total // 10) :]
    step = run.best_step or run.total
    return Fitted(first_step + step, run.best, float(np.mean(tail)))


@contextmanager
def seeded(seed: int, resources: Resources) -> Iterator[None]:
    """Torch seeded, deterministic and on `resources.threads` threads inside; as before after.

    Wrap building a module in it, too: random initialisation is part of what a seed fixes.
    """
    import torch

    devices = [resources.device] if resources.device.startswith("cuda") else []
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_num_threads(resources.threads)
        torch.use_deterministic_algorithms(resources.device == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.set_num_threads(threads)


class _Run:
    """The moving parts of one training."""

    def __init__(
        self, learner: Learner, config: TrainingConfig, resources: Resources, seed: int
    ) -> None:
        self.learner, self.config, self.resources = learner, config, resources
        self.total = config.max_steps or TINY_STEPS
        self.module = learner.module.to(resources.device)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = _adamw(self.parameters, config, resources)
        self.rng = np.random.default_rng([seed, 1])
        self.step, self.lr = 0, 0.0
        self.losses: list[float] = []
        self.best, self.best_step = math.nan, 0
        self.best_state: dict[str, Tensor] = {}
        self._reported = -math.inf

    def advance(self, first_step: int) -> None:
        """One optimiser step. Raises TrainingDiverged."""
        import torch

        self.module.train()
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
        self.losses.append(loss)

    def _backward(self) -> float:
        """Gradients of the mean loss over the whole batch, a micro-batch at a time; that mean."""
        batch = self.learner.draw(self.rng, self.config.batch_size)
        size, total = len(batch[0]), 0.0
        chunk = self.resources.micro_batch or size
        for start in range(0, size, chunk):
            part = tuple(t[start : start + chunk].to(self.resources.device) for t in batch)
            loss = self.learner.loss(part) * (len(part[0]) / size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def evaluate(self, score: Scorer | None) -> Scored | None:
        """Score the live module on tune, and remember it where it is the best so far."""
        if score is None:
            return None
        with inference(self.module, self.resources):
            scored = score(self.learner.predictor())
        pinball = float(scored.scores["tune_pinball"])
        if math.isfinite(pinball) and not pinball >= self.best:
            self.best, self.best_step = pinball, self.step
            self.best_state = {k: v.detach().clone() for k, v in self._state().items()}
        return scored

    def keep_best(self) -> None:
        """Put the best scored weights back."""
        if self.best_step and self.best_step != self.step:
            self.module.load_state_dict(self.best_state)
        self.module.eval()

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
        from foresweep.models import training_state as states

        tensors = states.pack(self._state(), self.best_state, self.optimizer, self.resources.device)
        numbers = {
            "step": self.step,
            "losses": self.losses,
            "best": None if math.isnan(self.best) else self.best,
            "best_step": self.best_step,
            "rng": self.rng.bit_generator.state,
        }
        states.write_state(file, tensors, numbers)

    def restore(self, file: Path) -> None:
        """Go on from a state file; without one, stay at the beginning. Raises CheckpointError."""
        from foresweep.models import training_state as states

        found = states.read_state(file)
        if found is None:
            return
        tensors, numbers = found
        self.best_state = states.unpack(tensors, self.module, self.optimizer, self.resources.device)
        self.step, self.losses = numbers["step"], numbers["losses"]
        self.best = math.nan if numbers["best"] is None else numbers["best"]
        self.best_step = numbers["best_step"]
        self.rng.bit_generator.state = numbers["rng"]


@contextmanager
def inference(module: nn.Module, resources: Resources) -> Iterator[None]:
    """Eval mode, no gradients, and the random state untouched; the mode as before after."""
    import torch

    devices = [resources.device] if resources.device.startswith("cuda") else []
    was_training = module.training
    module.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _adamw(
    parameters: list[nn.Parameter], config: TrainingConfig, resources: Resources
) -> torch.optim.AdamW:
    import torch

    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=BETAS,
        weight_decay=config.weight_decay,
        fused=resources.device.split(":")[0] in ("cpu", "cuda"),
    )


def _evaluation_steps(total: int) -> frozenset[int]:
    """Steps after which tune is scored: evenly spaced, the last one the end."""
    return frozenset(math.ceil(total * k / EVALUATIONS) for k in range(1, EVALUATIONS + 1))
