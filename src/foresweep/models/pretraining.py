"""Up to when pretrained weights may have seen the world, and who says so.

A test period that begins before that day proves nothing about them: whoever judges a run compares
the two. From scratch there is nothing to know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foresweep.errors import UsageError
from foresweep.models.base import ForecastModel
from foresweep.models.checkpoint import CARD


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The last day that may be in weights."""

    date: str  # ISO: 2024-05-31
    source: str


@runtime_checkable
class KnowsCutoff(Protocol):
    """A family that knows its own published weights; a plug-in adds this one method."""

    def pretrain_cutoff(self, config: Any) -> Cutoff | None:
        """Of the weights that a resolved config starts from; None where it does not know them."""
        ...


TOTO = Cutoff(
    "2025-05-20",
    "publication of the weights (arXiv 2505.14766); the end of their data is not stated",
)
KRONOS = Cutoff(
    "2024-05-31",
    "the authors: trained to February 2024, validated on March to May 2024 "
    "(github.com/shiyu-coder/Kronos/issues/204)",
)
CHRONOS2 = Cutoff(
    "2025-10-20",
    "publication of the weights (arXiv 2510.15821); their data sets are listed, not dated",
)
PUBLISHED: Mapping[str, Mapping[str, Cutoff]] = {
    "toto": {"published": TOTO, "Datadog/Toto-Open-Base-1.0": TOTO},
    "kronos": {
        "published": KRONOS,
        "NeoQuasar/Kronos-mini": KRONOS,
        "NeoQuasar/Kronos-small": KRONOS,
        "NeoQuasar/Kronos-base": KRONOS,
    },
    "chronos2": {"published": CHRONOS2, "amazon/chronos-2": CHRONOS2},
}
"""By family and Hugging Face id. Where the authors state no end of their data, the day of
publication stands for it."""


def weights_cutoff(model: ForecastModel, config: Any, said: str | None = None) -> Cutoff | None:
    """Up to when the weights of a resolved config may have seen the world: the latest of what is
    known of them, what their card says and what was `said` (an ISO date).

    None from scratch, and where nobody knows: what starts from such weights is contaminated as far
    as anybody can tell. Raises UsageError for a date that is none.
    """
    pretrained = getattr(config, "pretrained", None)
    if pretrained is None:
        return None
    known = [_of_checkpoint(pretrained), _of_published(model.name, pretrained)]
    if isinstance(model, KnowsCutoff):
        known.append(model.pretrain_cutoff(config))
    if said is not None:
        known.append(Cutoff(parse_date(said), "said with --pretrain-cutoff"))
    return max((c for c in known if c), key=lambda c: c.date, default=None)


def parse_date(text: str) -> str:
    """An ISO date, as said. Raises UsageError."""
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError as error:
        raise UsageError(
            f"--pretrain-cutoff {text!r} is no date; write it as 2024-05-31"
        ) from error


def _of_published(model: str, pretrained: str) -> Cutoff | None:
    """Kronos names its predictor and its tokenizer as ID+TOKENIZER_ID."""
    return PUBLISHED.get(model, {}).get(pretrained.partition("+")[0])


def _of_checkpoint(pretrained: str) -> Cutoff | None:
    """Of a checkpoint of ours: the last bar that it, or what it was made from, was trained, tuned
    or selected on."""
    folder = Path(pretrained).expanduser()
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
    except (OSError, ValueError):  # the authors' own format, or no folder at all
        return None
    if not isinstance(card, dict):
        return None
    parent = card.get("pretrain_cutoff") or {}
    seen = [card.get("tuned_until"), card.get("selected_until"), parent.get("date")]
    days = [str(day)[:10] for day in seen if day]
    who = card.get("run_id", folder.name)
    return Cutoff(max(days), f"the card of {who}: trained, tuned or selected on") if days else None
