"""A tiny Toto for tests: configs, networks, folders in the authors' own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from foresweep.data.windows import Context, make_context
from foresweep.models.base import Facts, Resources
from foresweep.models.toto import network as nets
from foresweep.models.toto.model import Toto, TotoConfig, TotoPredictor
from foresweep.models.training.loop import seeded
from panels import make_panel

FACTS = Facts(horizon=3, max_context=256, train_bars=1000)
NARROW = {"embed_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_hidden_dim": 32}


def resolved(**values: Any) -> TotoConfig:
    return Toto().resolve(TotoConfig(**{"context_length": 64, **NARROW, **values}), FACTS)


def network_of(config: TotoConfig, seed: int = 0) -> Any:
    with seeded(seed, Resources()):
        return nets.build(nets.network_options(config.architecture, config.dropout)).eval()


def authors_folder(path: Path, **changes: Any) -> dict[str, Any]:
    """A tiny network in the authors' own format, written with their own class and file names, since
    their `save_pretrained` raises NotImplementedError: model.safetensors and config.json."""
    options = {**nets.network_options(resolved(patch_size=16).architecture, 0.1), **changes}
    with seeded(3, Resources()):
        model = nets.package().Toto(**options)
    path.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(options))
    return dict(model.model.state_dict())


def context_of(rows: int = 64, num: int = 6) -> Context:
    panel = make_panel(3, 200)
    return make_context(panel, np.arange(num) % 3, 100 + 7 * np.arange(num), rows, 3)


def predictor_of(config: TotoConfig, horizon: int = 3) -> TotoPredictor:
    return TotoPredictor(network_of(config), config, config.view(horizon), Resources())
