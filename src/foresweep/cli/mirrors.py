"""Between a sweep's events and the mirrors that repeat its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from foresweep.integrations.mirror import Mirrored, open_mirror

if TYPE_CHECKING:
    from foresweep.search.events import Event, Listener


class Mirrors:
    """The mirrors of a sweep; the block's end waits for what has not been sent."""

    def __init__(self, wanted: Sequence[str], warn: Callable[[str], None]) -> None:
        """Raises UnknownName, MissingExtra, UsageError before anything runs."""
        self._mirrors = [
            Mirrored(name.partition(":")[0], open_mirror(name), warn) for name in wanted
        ]

    def __enter__(self) -> Mirrors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for mirror in self._mirrors:
            mirror.close()

    def beside(self, listen: Listener) -> Listener:
        """A listener that tells `listen` and then every mirror."""

        def both(event: Event) -> None:
            listen(event)
            self._on_event(event)

        return both

    def _on_event(self, event: Event) -> None:
        from foresweep.search.events import TrialFinished, TrialProgressed, TrialStarted

        for mirror in self._mirrors:
            match event:
                case TrialStarted():
                    mirror.start(event.run)
                case TrialProgressed():
                    mirror.log(event.run, event.step, event.scores)
                case TrialFinished():
                    mirror.finish(event.run)
