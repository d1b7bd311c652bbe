"""Chronos-2's training against its authors' `fit`, and a step of each published size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2 import Chronos2Model as TheirModel
from chronos.chronos2.dataset import Chronos2Dataset
from torch import Tensor, nn
from transformers.trainer_callback import TrainerCallback
from transformers.utils import logging

from foresweep.models.base import Facts, Predictor, Resources, TrainingJob
from foresweep.models.chronos2 import network as net
from foresweep.models.chronos2.model import Chronos2, Chronos2Config, start
from foresweep.models.training.loop import _Run, fit, seeded
from foresweep.models.training.optimisation import no_norm_or_bias, tune
from panels import make_panel
from sine import Case, make_case, train_case

pytestmark = pytest.mark.slow

SHAPE = {"patch_size": 8, "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2}
VARIATES, LABELS, STEPS = 3, 11, 12
RECIPE: dict[str, Any] = {
    "pretrained": "theirs", "lr": 3e-3, "max_steps": STEPS, "batch_size": 4, "schedule": "linear",
    "warmup_fraction": 0.0, "weight_decay": 0.1, "gradient_clip": 1.0, "precision": "fp32",
}  # fmt: skip


class Watch(TrainerCallback):
    """Remembers the weights before the first step."""

    first: dict[str, Tensor]

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        weights = given["model"].state_dict()
        self.first = {k.removeprefix("base_model.model."): v.clone() for k, v in weights.items()}


@dataclass
class FromBatches:
    """A learner that is fed what the authors' dataset gave."""

    module: nn.Module
    batches: Iterator[dict[str, Any]]

    def draw(self, rng: np.random.Generator | None, size: int) -> tuple[Tensor, Tensor]:
        batch = next(self.batches)
        context, labels = (
            batch[k].unflatten(0, (-1, VARIATES)) for k in ("context", "future_target")
        )
        assert len(context) == size
        return context, labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return net.loss(self.module, *batch)

    def predictor(self) -> Predictor:
        raise AssertionError("nothing is scored")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_on_the_authors_batches_every_loss_is_that_of_their_fit(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two targets and a covariate a window; their Trainer, optimiser, schedule, decay and clip."""
    logging.disable_progress_bar()
    losses: list[float] = []
    batches: list[dict[str, Any]] = []
    compute, draw = TheirModel._compute_loss, Chronos2Dataset._generate_train_batches

    def noted_loss(*args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = compute(*args, **kwargs)
        losses.append(loss.item())
        return loss

    def noted_batches(self: Chronos2Dataset) -> Iterator[dict[str, Any]]:
        for batch in draw(self):
            batches.append(dict(batch))
            yield batch

    monkeypatch.setattr(TheirModel, "_compute_loss", noted_loss)
    monkeypatch.setattr(Chronos2Dataset, "_generate_train_batches", noted_batches)

    core = net.core_config(**SHAPE, dropout=0.0, context_length=48, label_length=LABELS)
    with seeded(0, Resources()):
        network = net.build(core)
        watch = Watch()
        Chronos2Pipeline(network).fit(
            _series(),
            prediction_length=LABELS,
            finetune_mode=mode,
            context_length=48,
            min_past=20,
            learning_rate=RECIPE["lr"],
            num_steps=STEPS,
            batch_size=RECIPE["batch_size"] * VARIATES,
            output_dir=tmp_path / "theirs",
            callbacks=[watch],
            remove_printer_callback=True,
            disable_tqdm=True,
            weight_decay=RECIPE["weight_decay"],
        )
    theirs = losses.copy()
    config = Chronos2Config(**RECIPE, finetune=mode, **_adapters(mode))
    tune(network, config, net.layers(SHAPE["num_layers"]))
    same_names = {k.replace(".default", ""): k for k in network.state_dict()}
    first = {same_names[k.replace(".default", "")]: v for k, v in watch.first.items()}
    network.load_state_dict(first)
    learner = FromBatches(network, iter(batches))
    untrained = learner.loss(FromBatches(network, iter(batches[-1:])).draw(None, 4)).item()
    losses.clear()
    fit(
        learner,
        TrainingJob(None, config, horizon=1, out=tmp_path / "ours"),
        decays=no_norm_or_bias,
    )
    assert len(theirs) == STEPS
    np.testing.assert_allclose(losses, theirs, rtol=1e-5)
    assert theirs[-1] < 0.998 * untrained, "it learns, so that the steps matter"


def _adapters(mode: str) -> dict[str, Any]:
    return {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0} if mode == "lora" else {}


def _series() -> list[dict[str, Any]]:
    """Five items of unequal length: two targets that a covariate leads."""
    rng = np.random.default_rng(0)
    out = []
    for length in (90, 120, 150, 180, 210):
        lead = np.sin(np.arange(length) / 3) + 0.1 * rng.standard_normal(length)
        targets = np.stack([np.roll(lead, 2), np.cumsum(lead)]).astype(np.float32)
        out.append({"target": targets, "past_covariates": {"lead": lead.astype(np.float32)}})
    return out


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(make_panel(num_items=3, num_bars=400), horizon=5)


@pytest.mark.parametrize(("size", "millions"), [("small", 28), ("base", 120)])
def test_a_published_size_takes_a_real_training_step(size: Any, millions: int, case: Case) -> None:
    wanted = Chronos2Config(
        size=size, context_length=32, batch_size=2, max_steps=1, warmup_fraction=0.0,
        target="return", covariates="none",
    )  # fmt: skip
    config = Chronos2().resolve(wanted, Facts(5, 512, 1000))
    with seeded(0, Resources()):
        job = TrainingJob(case.train, config, horizon=5, out=Path())
        learner = start(job)
        before = learner.module.get_parameter("input_patch_embedding.hidden_layer.weight").clone()
        run = _Run(learner, job, no_norm_or_bias)
        run.advance(0)
    size = sum(p.numel() for p in learner.module.parameters())
    assert size == pytest.approx(1e6 * millions, rel=0.01)
    assert np.isfinite(run.losses).all()
    after = learner.module.get_parameter("input_patch_embedding.hidden_layer.weight")
    assert not torch.equal(before, after)


def test_half_precision_learns_as_single_does(case: Case, tmp_path: Path) -> None:
    """At the width from which bf16 is the default where a device has units for it."""
    single = Chronos2Config(
        d_model=256, d_ff=512, num_layers=2, num_heads=4, patch_size=8, context_length=48,
        batch_size=8, lr=1e-3, max_steps=24, dropout=0.0, target="return", precision="fp32",
    )  # fmt: skip
    final = []
    for config in (single, replace(single, precision="bf16")):
        out = tmp_path / str(config.precision)
        found = train_case(Chronos2(), config, case, out, seed=0)
        final.append(found.card["fitted"]["final_loss"])
    assert final[0] != final[1]
    assert final[1] == pytest.approx(final[0], rel=0.01)
