"""Kronos keeps the contract of every model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from foresweep.evaluation.contract import ModelContract
from foresweep.models.kronos.config import architecture_of, build
from foresweep.models.kronos.model import Kronos
from kronos_tiny import SHAPE, SMALLEST, config


@pytest.mark.slow
class TestKronosContract(ModelContract):
    """Both stages run in every trial from scratch: four steps are two of each."""

    modes = ("scratch", "full", "lora", "zero-shot")

    def make(self) -> Kronos:
        return Kronos()

    def config(self) -> Mapping[str, Any]:
        return SMALLEST

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Patience needs three scorings of the predictor, which has half of the steps."""
        return {"patience": {"max_steps": 8}}

    def tuned_config(self, folder: Path) -> Mapping[str, Any]:
        """Random weights in the authors' format."""
        torch.manual_seed(0)
        nets = build(architecture_of(config()))
        nets.tokenizer.save_pretrained(folder / "tokenizer")
        nets.predictor.save_pretrained(folder / "model")
        rest = {k: v for k, v in SMALLEST.items() if k not in SHAPE}
        return {**rest, "pretrained": str(folder), "size": None}
