"""Checkpoints in the files of a family's authors, for their own loaders.

    chronos2    config.json, model.safetensors                  Chronos2Pipeline.from_pretrained
    toto        config.json, model.safetensors                  Toto.load_from_checkpoint
    kronos      model/ and tokenizer/, each with those two      Kronos.from_pretrained

LoRA adapters are merged: a checkpoint of ours holds none. What stands around the network here (how
prices become its inputs and its outputs prices, and the calibration) has no place in those files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foresweep.errors import CheckpointError, UsageError
from foresweep.models.base import Checkpoint, Resources, make_config
from foresweep.models.calibration import FILE as CALIBRATION
from foresweep.models.checkpoint import read_weights

NOTE = "foresweep.json"
"""Beside the authors' files: which run it was, and what was left out."""


def what_is_lost(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What of a checkpoint the authors' files cannot hold, in words; () where their own code makes
    the same forecasts of them. Raises UsageError for a model whose authors' files nobody knows."""
    _writer(checkpoint)
    config = checkpoint.config
    lost = []
    target = config.get("target")
    if checkpoint.model == "kronos":
        if target != "price":
            lost.append(f"its inputs: target={target!r}, where the authors' code gives it prices")
    else:
        scaling = (
            "" if config.get("scaling") in (None, "none") else f", scaled by {config['scaling']}"
        )
        also = " and covariates" if config.get("covariates") == "ohlcv" else ""
        lost.append(
            f"its inputs: target={target!r}{scaling}{also}, where the authors' code gives it prices"
        )
    if CALIBRATION in checkpoint.card.get("files", {}):
        lost.append("its calibration, which was fitted on tune")
    return tuple(lost)


def write_authors(checkpoint: Checkpoint, folder: Path, *, bare: bool = False) -> tuple[str, ...]:
    """Write a verified checkpoint in its authors' files to a new folder; what was left out.

    Raises UsageError where something would be lost and `bare` is not said, for a model without such
    files, and for a folder that is there; CheckpointError where it cannot be written.
    """
    write, lost = _writer(checkpoint), what_is_lost(checkpoint)
    if lost and not bare:
        raise UsageError(
            f"the authors' files have no place for {'; nor for '.join(lost)}: their loader would "
            f"make other forecasts; for the network alone say --bare"
        )
    if folder.exists():
        raise UsageError(f"{folder} is there already; give a new folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(checkpoint, temporary)
        note = {"run_id": checkpoint.card.get("run_id"), "model": checkpoint.model}
        note |= {"config": dict(checkpoint.config), "left_out": list(lost)}
        (temporary / NOTE).write_text(json.dumps(note, indent=2) + "\n", "utf-8")
        for file in temporary.rglob("*.safetensors"):  # written for one user alone
            shutil.copymode(temporary / NOTE, file)
        os.rename(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return lost


def _writer(checkpoint: Checkpoint) -> Callable[[Checkpoint, Path], None]:
    writers = {"chronos2": _chronos2, "toto": _toto, "kronos": _kronos}
    if checkpoint.model not in writers:
        raise UsageError(
            f"{checkpoint.model} has no files of its authors to be written in; only "
            f"{', '.join(writers)} have; hand it on with: foresweep export bundle"
        )
    return writers[checkpoint.model]


def _chronos2(checkpoint: Checkpoint, folder: Path) -> None:
    from foresweep.models.chronos2 import network as net
    from foresweep.models.training.loop import seeded

    with seeded(0, Resources()):
        network = net.build(checkpoint.card["network"])
    net.fill(network, read_weights(checkpoint), where=str(checkpoint.path))
    with _no_progress_bar():
        network.save_pretrained(folder)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws one for every file that it writes."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _toto(checkpoint: Checkpoint, folder: Path) -> None:
    """Their `save_pretrained` raises NotImplementedError: their class's own names are written."""
    from safetensors.numpy import save_file

    from foresweep.models.toto.network import options_of

    weights = {f"model.{name}": value for name, value in read_weights(checkpoint).items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(options_of(checkpoint)), indent=2), "utf-8")


def _kronos(checkpoint: Checkpoint, folder: Path) -> None:
    from foresweep.models.kronos.config import KronosConfig, build, card_architecture, load_state
    from foresweep.models.training.loop import seeded

    make_config(KronosConfig, checkpoint.config, model="kronos")
    with seeded(0, Resources()):
        nets = load_state(build(card_architecture(checkpoint)), checkpoint)
    nets.predictor.save_pretrained(folder / "model")
    nets.tokenizer.save_pretrained(folder / "tokenizer")
