"""A sweep's plan on record, so that another process can go on with it as it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from foresweep.errors import UsageError
from foresweep.models.base import Resources
from foresweep.records import Sweep
from foresweep.search.plan import SweepPlan
from foresweep.search.proposals import Proposal
from foresweep.space import Spaces, as_spec, from_spec

ASKED = "asked"
"""Where the plan stands in a sweep's record, beside how its parts were cut."""


def as_record(plan: SweepPlan) -> dict[str, Any]:
    """The whole plan as JSON values."""
    found = {f.name: getattr(plan, f.name) for f in fields(plan)}
    spaces = plan.spaces
    return found | {
        "models": list(plan.models),
        "resources": asdict(plan.resources),
        "spaces": {
            "texts": dict(spaces.texts),
            "places": dict(spaces.places),
            "changes": {name: as_spec(d) for name, d in spaces.changes.items()},
        },
        "proposals": [
            {"model": p.model, "config": dict(p.config), "source": p.source} for p in plan.proposals
        ],
    }


def plan_of(sweep: Sweep) -> SweepPlan:
    """The plan that a sweep was opened with. Raises UsageError where its record does not say."""
    asked = sweep.plan.get(ASKED)
    if asked is None:
        raise UsageError(
            f"sweep {sweep.sweep_id} does not say what was asked (it was recorded by hand or by an "
            f"older foresweep), so it cannot be resumed; the same command as then goes on where "
            f"it stopped"
        )
    unknown = sorted(asked.keys() - {f.name for f in fields(SweepPlan)})
    if unknown:
        raise UsageError(
            f"sweep {sweep.sweep_id} was asked for {', '.join(unknown)}, which this foresweep does "
            f"not know; resume it with the newer one that began it"
        )
    return SweepPlan(**asked | _values(asked))


def family_of(sweep: Sweep, sweeps: Iterable[Sweep]) -> list[Sweep]:
    """The sweeps that ask what this one asks at other horizons, itself among them, by horizon."""
    family = sweep.plan.get(ASKED, {}).get("family")
    found = [s for s in sweeps if family and s.plan.get(ASKED, {}).get("family") == family]
    return sorted(found, key=lambda s: s.horizon) or [sweep]


def _values(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are no plain JSON values."""
    spaces = asked["spaces"]
    changes = {name: from_spec(name, spec) for name, spec in spaces["changes"].items()}
    return {
        "models": tuple(asked["models"]),
        "resources": Resources(**asked["resources"]),
        "spaces": Spaces(spaces["texts"], spaces["places"], changes),
        "proposals": tuple(Proposal(**p) for p in asked["proposals"]),
    }
