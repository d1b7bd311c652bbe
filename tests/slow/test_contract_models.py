"""Toto and Chronos-2 keep the contract, each in its smallest form (Kronos: models/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foresweep.evaluation.contract import ModelContract
from foresweep.models.base import Resources
from foresweep.models.registry import get_model
from foresweep.models.toto.network import network_options
from toto_tiny import authors_folder

pytestmark = pytest.mark.slow

STEPS = {"context_length": 32, "batch_size": 4, "lr": 3e-3, "max_steps": 4}
TOTO = {
    "patch_size": 8,
    "embed_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
    "mlp_hidden_dim": 64,
    "num_components": 2,
}
CHRONOS2 = {"patch_size": 8, "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2}


def by_size(shape: dict[str, int]) -> dict[str, Any]:
    """What `size` is probed with: it decides only what the config leaves open."""
    return dict.fromkeys(shape, None) | {"max_steps": 1}


class TestToto(ModelContract):
    modes = ("scratch", "full", "lora", "zero-shot")

    def make(self):
        return get_model("toto")

    def config(self):
        return STEPS | TOTO

    def settings(self):
        return {"size": by_size(TOTO) | {"context_length": 64}}

    def tuned_config(self, folder: Path):
        """Random weights in the authors' format: config.json and model.safetensors."""
        authors_folder(folder, **network_options(TOTO, 0.1))
        return STEPS | {"pretrained": str(folder), "size": None, "num_samples": 16}


class TestChronos2(ModelContract):
    modes = ("scratch", "full", "lora", "zero-shot")

    def make(self):
        return get_model("chronos2")

    def config(self):
        return STEPS | CHRONOS2

    def settings(self):
        return {"size": by_size(CHRONOS2)}

    def tuned_config(self, folder: Path):
        """Random weights in the authors' format: config.json and model.safetensors."""
        from safetensors.numpy import save_file

        from foresweep.models.chronos2 import network as net
        from foresweep.models.training.loop import seeded

        core = net.core_config(**CHRONOS2, dropout=0.1, context_length=32, label_length=8)
        (folder / "config.json").write_text(json.dumps(core))
        with seeded(0, Resources()):
            state = net.build(core).state_dict()
            save_file({k: v.numpy() for k, v in state.items()}, folder / "model.safetensors")
        return STEPS | {"pretrained": str(folder)}
