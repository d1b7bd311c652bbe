"""Champions: which run is in service in a slot, who may put it there, and the way back.

A slot is a place of service, by default one per panel and horizon: `prices-h5`. Its history only
grows; what is in service follows from it, so that of two calls at once one comes first and the
other is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foresweep.errors import CheckpointError, NotFound, TrackerError, UnknownName, UsageError
from foresweep.models.base import Checkpoint
from foresweep.models.checkpoint import CARD, read_checkpoint, update_card
from foresweep.models.ensemble import manifest_hash
from foresweep.models.licence import Licence, weights_licence
from foresweep.models.registry import get_model
from foresweep.records import Outcome, Run, RunState, is_surrogate, refits_of
from foresweep.tracker.service import (
    EVIDENCE,
    PROMOTE,
    RETIRE,
    ROLLBACK,
    SHADOW,
    Entry,
    Service,
    Slot,
)
from foresweep.tracker.tracker import Tracker

LICENCE = "weights_licence"
"""Key of a checkpoint's card: the licences of its weights, and who accepted them."""
UNJUDGED = "the refitted weights themselves are unjudged: the verdict is on the config"


@dataclass(frozen=True, slots=True)
class Promoted:
    """A change of a slot, and what is to be said of it."""

    slot: Slot
    entry: Entry
    licences: tuple[Licence, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """An update held against its parent on bars that neither was trained, tuned or selected on."""

    parent: str
    number: int  # k: it is the k-th update of this parent
    num_origins: int  # compared, one a bar
    compared_from: str  # the first bar that was forecast
    parent_loss: float  # scaled, mean
    child_loss: float
    pvalue: float  # one-sided: that the child is no better
    level: float  # 0.05 / k^2

    @property
    def is_better(self) -> bool:
        """Is the child proved to be better?"""
        return self.pvalue < self.level

    def in_words(self) -> str:
        """What was found, in a sentence."""
        word = "better than" if self.is_better else "not better than"
        return (
            f"update {self.number} of {self.parent}: {word} it on {self.num_origins} origins from "
            f"{self.compared_from[:10]} that neither was trained on: scaled loss "
            f"{self.child_loss:.4f} against {self.parent_loss:.4f}, p = {self.pvalue:.2g}, level "
            f"{self.level:.2g}"
        )

    def as_json(self) -> dict[str, Any]:
        """As evidence on record and in the card."""
        return {"kind": "update", "words": self.in_words(), **asdict(self)}

    def require(self, run: Run, checkpoint: Checkpoint, slot: Slot) -> None:
        """Raises UsageError where this does not allow to put the run in service in this slot."""
        if run.updates != self.parent:
            raise UsageError(f"run {run.run_id} is no update of {self.parent}")
        if not self.is_better:
            raise UsageError(f"it stays out of service: {self.in_words()}")
        _require_held(slot, run, self.parent, f"update that one: foresweep update {_of(slot)}")


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """A shadow held against the champion it stood beside, on the forecasts of both that have come
    true, by a test that may be looked at every day."""

    champion: str
    manifest: str  # of the shadow's checkpoint: these weights made the forecasts
    num_origins: int
    num_forecasts: int
    since: str  # the first origin and the last
    until: str
    difference: float  # of scaled losses, mean: negative where the shadow is better
    pvalue: float  # valid at any time: that the shadow is no better
    level: float

    @property
    def is_better(self) -> bool:
        """Is the shadow proved to be better?"""
        return self.pvalue <= self.level

    def in_words(self) -> str:
        """What was found, in a sentence."""
        word = "better than" if self.is_better else "not proved to be better than"
        return (
            f"live, as a shadow: {word} {self.champion} on {self.num_origins} origins from "
            f"{self.since[:10]} to {self.until[:10]}: scaled loss {self.difference:+.4f}, "
            f"p = {self.pvalue:.2g}, level {self.level:.2g}"
        )

    def as_json(self) -> dict[str, Any]:
        """As evidence on record and in the card."""
        return {"kind": "shadow", "words": self.in_words(), **asdict(self)}

    def require(self, run: Run, checkpoint: Checkpoint, slot: Slot) -> None:
        """Raises UsageError where this does not allow to put the run in service in this slot, and
        CheckpointError where its weights are not those that made the forecasts."""
        if manifest_hash(checkpoint) != self.manifest:
            raise CheckpointError(
                f"{checkpoint.path} is not what stood beside the champion of {slot.name}: the run "
                f"was trained again; its live forecasts are of other weights"
            )
        if not self.is_better:
            raise UsageError(f"it stays a shadow: {self.in_words()}")
        _require_held(slot, run, self.champion, f"see how it does: foresweep champion {_of(slot)}")


def promote(
    tracker: Tracker,
    run_id: str,
    *,
    slot: str | None = None,
    shadow: bool = False,
    force_reason: str | None = None,
    accept_licence: bool = False,
    judged: Run | None = None,
    comparison: Comparison | LiveComparison | None = None,
    who: str = "",
) -> Promoted:
    """Put a run in service as champion of a slot, or as a shadow beside it.

    It needs a `promote` verdict on record (a shadow needs none), or a reason why it is forced,
    which is recorded. `judged`: the run whose verdict counts, where these are its config's weights
    refitted. `comparison`: evidence of an update's or a shadow's own, in place of a verdict: it is
    recorded and stands in the card. Raises NotFound, UsageError (no verdict, an update or a shadow
    that is not proved to be better than what is in service, a licence that forbids production, a
    run that was judged as refitted and is not), CheckpointError where its weights are gone or
    altered, TrackerError.
    """
    run = tracker.get_run(run_id)
    if run.sweep_id is not None and refits_of(tracker.get_sweep(run.sweep_id).plan) > 1:
        raise UsageError(
            f"run {run.run_id} was judged as a config that is refitted as time goes on, and "
            f"its own weights are the oldest of those: put in service what is trained on all "
            f"bars, with: foresweep promote {run.run_id} --refit"
        )
    checkpoint = checkpoint_of(run)
    service = Service(tracker.store)
    name = slot or slot_of(tracker, judged or run)
    seen = service.slot(name)
    if comparison is not None:
        comparison.require(run, checkpoint, seen)
    is_needed = not shadow and comparison is None
    verdict = require_allowed(
        tracker, judged or run, shadow=not is_needed, force_reason=force_reason
    )
    notes = []
    if force_reason is not None and not shadow and not _is_promote(verdict):
        said = f"against the verdict {verdict['outcome']!r}" if verdict else "without a verdict"
        notes.append(f"forced {said}; the reason is on record")
    licences = weights_licence(checkpoint, get_model)
    told, more = _accepted(run, licences, accept=accept_licence, who=who)
    notes += more
    evidence = {} if comparison is None else {EVIDENCE: comparison.as_json()}
    if told or evidence:
        update_card(checkpoint, told | evidence)
    if judged is not None and judged.run_id != run.run_id:
        notes.append(UNJUDGED)
    content: dict[str, Any] = {"licences": [asdict(one) for one in licences], "notes": notes}
    content |= evidence
    if judged is not None:
        content["judged_run_id"] = judged.run_id
    after = service.change(
        name,
        SHADOW if shadow else PROMOTE,
        run_id=run.run_id,
        checkpoint_path=str(checkpoint.path.resolve()),
        manifest=manifest_hash(checkpoint),
        verdict_id=int(verdict["verdict_id"]) if verdict is not None and is_needed else None,
        reason=None if shadow else force_reason,
        content=content,
        who=who,
        seen=seen.last_id,
    )
    entry = after.shadows[-1] if shadow else after.champion
    assert entry is not None
    return Promoted(after, entry, licences, tuple(notes))


def rollback(tracker: Tracker, slot: str | None = None, *, reason: str = "", who: str = "") -> Slot:
    """Return to the champion before, in one step; the slot as it is then. Its checkpoint is read
    and verified first. Raises NotFound where nothing is before it, CheckpointError, TrackerError
    where somebody changed the slot at the same time."""
    service = Service(tracker.store)
    found = find_slot(service, slot)
    for earlier in found.before[:1]:
        _same(earlier, read_checkpoint(Path(earlier.checkpoint_path)))
    return service.change(found.name, ROLLBACK, reason=reason or None, who=who, seen=found.last_id)


def retire(tracker: Tracker, run_id: str, slot: str | None = None, *, who: str = "") -> Slot:
    """Take a shadow out of service. Raises NotFound where it is none."""
    service = Service(tracker.store)
    found = find_slot(service, slot)
    full = tracker.get_run(run_id).run_id
    return service.change(found.name, RETIRE, run_id=full, who=who, seen=found.last_id)


def find_slot(service: Service, name: str | None = None) -> Slot:
    """The slot of this name, else the only one. Raises NotFound where there is none, UsageError
    where there are several, UnknownName."""
    slots = {slot.name: slot for slot in service.slots()}
    if not slots:
        raise NotFound("nothing is in service yet; promote a run with: foresweep promote RUN")
    if name is not None:
        if name not in slots:
            raise UnknownName("slot", name, slots)
        return slots[name]
    if len(slots) > 1:
        raise UsageError(f"there are {len(slots)} slots: say which with --slot {'|'.join(slots)}")
    return next(iter(slots.values()))


def require_champion(slot: Slot) -> Entry:
    """Raises NotFound where the slot has shadows alone."""
    if slot.champion is None:
        raise NotFound(f"slot {slot.name} has no champion; put one there: foresweep promote RUN")
    return slot.champion


def slot_of(tracker: Tracker, run: Run) -> str:
    """The default slot of a run: the name of its panel and its horizon, `prices-h5`.

    Raises UsageError for a run of no sweep.
    """
    if run.sweep_id is None:
        raise UsageError(f"run {run.run_id} is of no sweep: say its slot with --slot NAME")
    sweep = tracker.get_sweep(run.sweep_id)
    source = ""
    if sweep.dataset_id is not None:
        source = str(tracker.get_dataset(sweep.dataset_id)["source"])
    return f"{_panel_name(source)}-h{sweep.horizon}"


def _panel_name(source: str) -> str:
    """`prices` of a folder; of one called `train` the folder it stands in."""
    parts = [p for p in Path(source).parts if p not in ("/", ".", "..")]
    while len(parts) > 1 and parts[-1].lower() in ("train", "data"):
        parts.pop()
    stem = parts[-1].partition(".")[0] if parts else "panel"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-").lower() or "panel"


def checkpoint_of(run: Run) -> Checkpoint:
    """A complete run's checkpoint, every file verified. Raises UsageError, CheckpointError."""
    if run.state != RunState.COMPLETE:
        raise UsageError(f"run {run.run_id} is {run.state.value}: only complete runs go in service")
    if run.checkpoint_path is None:
        raise CheckpointError(
            f"run {run.run_id} has no checkpoint; train it again with: "
            f"foresweep reproduce {run.run_id}"
        )
    recorded = Path(run.checkpoint_path)
    beside = Path(str(run.forecasts_path)) / recorded.name  # the folder of runs may have moved
    return read_checkpoint(recorded if (recorded / CARD).is_file() else beside)


def _same(entry: Entry, checkpoint: Checkpoint) -> Checkpoint:
    if manifest_hash(checkpoint) != entry.manifest:
        raise CheckpointError(
            f"{checkpoint.path} is not what was put in service in {entry.slot} (its manifest "
            f"differs from {entry.manifest[:12]}): the run was trained again; promote it anew"
        )
    return checkpoint


def checkpoint_in_service(entry: Entry) -> Checkpoint:
    """What an entry put in service, every file verified. Raises CheckpointError."""
    return _same(entry, read_checkpoint(Path(entry.checkpoint_path)))


def require_allowed(
    tracker: Tracker, run: Run, *, shadow: bool = False, force_reason: str | None = None
) -> Mapping[str, Any] | None:
    """The newest verdict on a run that came to its end. Raises UsageError where it does not allow
    to promote the run and no reason is given to do so all the same, and for a run that was trained
    on surrogate prices, whatever the reason."""
    if run.sweep_id is not None and is_surrogate(tracker.get_sweep(run.sweep_id).plan):
        raise UsageError(
            f"run {run.run_id} was trained on surrogate prices, which no market has: it shows "
            f"whether a search finds skill where there is none, and never goes in service"
        )
    ended = [v for v in tracker.judgings.verdicts(run.run_id) if v["outcome"]]
    verdict = ended[-1] if ended else None
    if shadow:
        return verdict
    if force_reason is None:
        _require_promote(run, verdict)
    elif not force_reason.strip():
        raise UsageError("--reason: say why; it is recorded with the champion")
    return verdict


def _is_promote(verdict: Mapping[str, Any] | None) -> bool:
    return verdict is not None and verdict["outcome"] == Outcome.PROMOTE


def _require_promote(run: Run, verdict: Mapping[str, Any] | None) -> None:
    force = f"or force it, on record: foresweep promote {run.run_id} --force --reason TEXT"
    if verdict is None:
        raise UsageError(
            f"run {run.run_id} has no verdict; ask for one: foresweep verdict {run.run_id}, {force}"
        )
    if verdict["outcome"] != Outcome.PROMOTE:
        why = str(verdict["content"].get("reason", "")).strip()
        raise UsageError(
            f"the verdict on run {run.run_id} is {verdict['outcome']!r}"
            f"{f' ({why})' if why else ''}; improve on it, {force}"
        )


def _require_held(slot: Slot, run: Run, wanted: str, advice: str) -> None:
    """Raises UsageError where the champion is another than a comparison was made with."""
    held = slot.champion
    if held is None or held.run_id != wanted:
        now = "nothing" if held is None else held.run_id
        raise UsageError(
            f"run {run.run_id} was held against {wanted}, and {now} is the champion of slot "
            f"{slot.name} now; {advice}"
        )


def _of(slot: Slot) -> str:
    return f"--slot {slot.name}"


def is_accepted(checkpoint: Checkpoint) -> bool:
    """Was a licence that forbids production accepted for these weights?"""
    return "accepted_at" in checkpoint.card.get(LICENCE, {})


def _accepted(
    run: Run, licences: Sequence[Licence], *, accept: bool, who: str
) -> tuple[dict[str, Any], list[str]]:
    """(for the card, what is to be said) of the licences, those that were accepted among them.

    Raises UsageError for one that forbids production.
    """
    forbidden = [one for one in licences if one.allows_production is False]
    if forbidden and not accept:
        raise UsageError(
            f"the weights that run {run.run_id} started from stand under {forbidden[0].name}, "
            f"which forbids production ({forbidden[0].source}); with an agreement of your own say "
            f"--accept-licence, which is recorded in its card"
        )
    told: dict[str, Any] = {"licences": [asdict(one) for one in licences]}
    if forbidden:
        told |= {"accepted_at": datetime.now(UTC).isoformat(timespec="seconds"), "accepted_by": who}
    notes = [f"licence {x.name} accepted for production, on record" for x in forbidden]
    for one in licences:
        if one.allows_production is None:
            notes.append(f"the licence of its pretrained weights is not known: {one.source}")
    return ({LICENCE: told} if licences else {}), notes


def refuse_in_service(tracker: Tracker, run_id: str) -> None:
    """Raises TrackerError where a slot needs the run's checkpoint."""
    if names := Service(tracker.store).pins(run_id):
        raise TrackerError(
            f"the files of run {run_id} are needed: it is in service, or what rollback returns to, "
            f"in slot {', '.join(names)}; promote another first, or hide the run without --yes"
        )
