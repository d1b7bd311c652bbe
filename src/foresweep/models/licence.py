"""Under which licence the weights stand that a model was made from, and who says so.

What was trained from scratch is its maker's. What started from somebody's weights stands under
their licence: whoever puts it into production has to know it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foresweep.models.base import Checkpoint, ForecastModel, make_config
from foresweep.models.checkpoint import CONFIG, read_checkpoint
from foresweep.models.ensemble import member_checkpoints
from foresweep.models.hub import is_published
from foresweep.models.registry import BASELINES, ENSEMBLE, FAMILIES


@dataclass(frozen=True, slots=True)
class Licence:
    """Of pretrained weights."""

    name: str  # an SPDX identifier where there is one: Apache-2.0, CC-BY-NC-4.0
    source: str  # who says so
    allows_production: bool | None  # None: nobody knows


@runtime_checkable
class KnowsLicence(Protocol):
    """A family that knows the licence of its weights; a plug-in adds this one method."""

    def weights_licence(self, config: Any) -> Licence | None:
        """Of the weights that a resolved config starts from or carries; None: there are none but
        those that were trained here."""
        ...


UNKNOWN = Licence("unknown", "neither its family nor a model card says", None)
TOTO = Licence("Apache-2.0", "model card of Datadog/Toto-Open-Base-1.0", True)
KRONOS = Licence("MIT", "model cards of NeoQuasar/Kronos-*", True)
CHRONOS2 = Licence("Apache-2.0", "model card of amazon/chronos-2", True)
PUBLISHED: Mapping[str, Licence] = {"toto": TOTO, "kronos": KRONOS, "chronos2": CHRONOS2}
"""Of the published weights of a family."""


def weights_licence(
    checkpoint: Checkpoint, family: Callable[[str], ForecastModel]
) -> tuple[Licence, ...]:
    """The licences that a checkpoint's weights stand under, each once; () where all was trained
    from scratch here. Every family is asked, plug-ins included; of an ensemble every member.

    A plug-in that says nothing of its weights is UNKNOWN. Raises CheckpointError, ModelError.
    """
    if checkpoint.model == ENSEMBLE:
        members = member_checkpoints(checkpoint)
        return tuple(dict.fromkeys(x for m in members for x in weights_licence(m, family)))
    model, pretrained = family(checkpoint.model), checkpoint.config.get("pretrained")
    is_told = checkpoint.model in (*BASELINES, *FAMILIES)
    if isinstance(model, KnowsLicence):
        said = model.weights_licence(make_config(model.Config, checkpoint.config, model=model.name))
        if said is not None:
            return (said,)
        is_told = True
    if pretrained is None:
        return () if is_told else (UNKNOWN,)
    folder = Path(str(pretrained)).expanduser()
    if _is_ours(folder):
        return weights_licence(read_checkpoint(folder), family)
    is_known = is_published(checkpoint.model, str(pretrained))
    return (PUBLISHED[checkpoint.model] if is_known else UNKNOWN,)


def _is_ours(folder: Path) -> bool:
    """Is it a checkpoint of foresweep, not the authors' own folder?"""
    try:
        said = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and {"model", "config"} <= said.keys()
