"""Tiny random weights of each family, in its authors' own format."""

from __future__ import annotations

import json
from pathlib import Path

from foresweep.models.base import Resources
from foresweep.models.training.loop import seeded

CHRONOS2 = {"patch_size": 8, "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2}


def write_weights(model: str, folder: Path) -> Path:
    """A folder of weights that `--pretrained` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    {"toto": _toto, "kronos": _kronos, "chronos2": _chronos2}[model](folder)
    return folder


def _toto(folder: Path) -> None:
    from toto_tiny import authors_folder

    authors_folder(folder)


def _kronos(folder: Path) -> None:
    from foresweep.models.kronos.config import architecture_of, build
    from kronos_tiny import config

    with seeded(0, Resources()):
        nets = build(architecture_of(config()))
    nets.tokenizer.save_pretrained(folder / "tokenizer")
    nets.predictor.save_pretrained(folder / "model")


def _chronos2(folder: Path) -> None:
    from safetensors.numpy import save_file

    from foresweep.models.chronos2 import network as net

    core = net.core_config(**CHRONOS2, dropout=0.1, context_length=32, label_length=8)
    (folder / "config.json").write_text(json.dumps(core))
    with seeded(0, Resources()):
        state = net.build(core).state_dict()
        save_file({k: v.numpy() for k, v in state.items()}, folder / "model.safetensors")
