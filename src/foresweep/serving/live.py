"""What answers: the slot's champion and shadows, looked at again while it serves, and swapped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from foresweep.errors import ForesweepError
from foresweep.lifecycle.champion import find_slot
from foresweep.lifecycle.inference import Serving, load_slot
from foresweep.models.base import Resources
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker

logger = logging.getLogger(__name__)
LOOK_EVERY_S = 0.25


@dataclass(slots=True, eq=False)
class Live:
    """The slot in service, kept up with the database by a thread of its own.

    A new champion is loaded beside the old one and takes its place between two batches: no request
    waits for it, none is dropped. One that cannot be loaded changes nothing; `trouble` says why.
    """

    tracker: Tracker
    name: str
    current: Serving
    resources: Resources | None = None
    look_every_s: float = LOOK_EVERY_S
    trouble: str = ""
    num_swaps: int = 0
    on_swap: Callable[[], None] = lambda: None
    _seen: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @classmethod
    def open(cls, tracker: Tracker, slot: str | None, resources: Resources | None = None) -> Live:
        """Raises NotFound, UsageError (several slots), CheckpointError."""
        found = find_slot(Service(tracker.store), slot)
        live = cls(tracker, found.name, load_slot(found, resources), resources)
        live._seen = found.last_id
        return live

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="foresweep-swap", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def look(self) -> bool:
        """Take over what was promoted since; was there anything?"""
        try:
            slot = Service(self.tracker.store).slot(self.name)
            if slot.last_id == self._seen:
                return False
            self._seen = slot.last_id  # one that cannot be loaded is tried once
            self.current = load_slot(slot, self.resources)
        except ForesweepError as error:
            self.trouble = str(error)
            logger.warning("the champion that was promoted is not in service: %s", error)
            return False
        self.trouble = ""
        self.num_swaps += 1
        self.on_swap()
        return True

    def _watch(self) -> None:
        while not self._stop.wait(self.look_every_s):
            try:
                self.look()
            except Exception as error:  # a plug-in may raise anything; the old champion goes on
                self.trouble = f"{type(error).__name__} while loading a champion; see the log"
                logger.exception("loading what was promoted failed")
