"""The one door to test losses: the look is on record before anything is read.

Loss panels of tune and val are read by `open_losses`, returns of the trading rule by
`open_returns`; losses of test by `open_test` alone, returns of test by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from foresweep.errors import CheckpointError, UsageError
from foresweep.evaluation.backtest import LOSSES, RETURNS
from foresweep.evaluation.losses import LossPanel, load_losses
from foresweep.evaluation.trading import Returns, load_returns
from foresweep.records import Run, RunState, refits_of
from foresweep.search.running.growing import forecast_grown
from foresweep.search.running.opening import SEALED, forecast_tests, unopened
from foresweep.tracker.tracker import Judging, Tracker


def open_losses(run: Run, part: str) -> LossPanel:
    """A run's loss panel of tune or val. Raises UsageError for test, CheckpointError where the
    files are gone, DataError where they cannot be read or are of other windows."""
    if part == SEALED:
        raise UsageError("test is sealed; ask for a verdict: foresweep verdict RUN")
    return _load(run, part)


def open_returns(run: Run, part: str) -> Returns | None:
    """What the trading rule earned on a run's forecasts of tune or val; None where it is not on
    this disk. Raises as `open_losses`."""
    if part == SEALED:
        raise UsageError("test is sealed; ask for a verdict: foresweep verdict RUN")
    if run.forecasts_path is None:
        return None
    path = Path(run.forecasts_path) / part / RETURNS
    if not path.is_file():
        return None
    found = load_returns(path)
    _require_own(run, part, found.fingerprint)
    return found


def open_test(
    tracker: Tracker,
    judging: Judging,
    candidates: Sequence[Run],
    beside: Sequence[Run],
    *,
    who: str,
    growing: bool = False,
) -> tuple[int, Mapping[str, LossPanel], bool]:
    """(k, {run_id: test losses}, is it one that grows?) of the candidates and of the baselines
    beside them.

    `growing`: it is opened as one to be read for ever. That is settled, and on record, when it is
    first opened: a growing test grows whoever asks, and its losses go on to the newest bars of the
    sweep's source. Raises UsageError where it was opened as one that ends.

    Who, when and why is in `test_looks` before the first file is opened, or the first forecast of
    test is made: trials make none (`search.running.opening`). Raises as `open_losses`.
    """
    every = [*candidates, *beside]
    # a look that would see nothing is not recorded
    lacking = unopened(tracker, [run for run in every if not has_losses(run, SEALED)])
    ids = [run.run_id for run in candidates]
    grows = _grows(tracker, candidates, growing)
    if grows:
        _refuse_refits(tracker, candidates)
    why = f"verdict {judging.judging_id}" + (FOR_EVER if grows else "")
    number = tracker.judgings.record_look(judging, ids, why=why, who=who)
    forecast_tests(tracker, lacking)
    found = {run.run_id: _load(run, SEALED) for run in every}
    if grows:
        for sweep_id in dict.fromkeys(run.sweep_id for run in candidates):
            mine = [run for run in every if run.sweep_id == sweep_id]
            grown = {i: load_losses(p) for i, p in forecast_grown(tracker, mine).items()}
            for run_id, panel in grown.items():
                _require_going_on(run_id, found[run_id], panel)
            found |= grown
    return number, found, grows


FOR_EVER = ", to be read for ever"
"""Ends the reason of a look at a test that grows."""


def _grows(tracker: Tracker, candidates: Sequence[Run], growing: bool) -> bool:
    """Is the test of these runs one that grows? As it was first opened. Raises UsageError."""
    said: dict[bool, str] = {}
    for run in candidates:
        first = next(iter(tracker.judgings.test_looks(run.run_id)), None)
        if first is not None:
            said[str(first["why"]).endswith(FOR_EVER)] = run.run_id
    if len(said) == 2 or (growing and False in said):
        raise UsageError(
            f"the test of run {said[False]} was opened as one that ends: whether a test is read "
            f"for ever is settled when it is first opened; ask without --growing"
        )
    return growing or True in said


def _refuse_refits(tracker: Tracker, runs: Sequence[Run]) -> None:
    """Raises UsageError for runs whose weights are refitted before each stretch of test."""
    for run in runs:
        if (num := refits_of(tracker.get_sweep(str(run.sweep_id)).plan)) > 1:
            raise UsageError(
                f"run {run.run_id} is refitted {num} times over its test, and a test that grows is "
                f"forecast by weights that stay: ask without --growing, or sweep without --refits"
            )


def _require_going_on(run_id: str, own: LossPanel, grown: LossPanel) -> None:
    """Raises CheckpointError where a grown test does not begin with the sweep's own."""
    num = len(own.origins)
    same = list(grown.origins[:num]) == list(own.origins) and grown.items == own.items
    if not same or any(
        not np.allclose(grown.losses[name][:num], values, rtol=1e-3, atol=1e-6, equal_nan=True)
        for name, values in own.losses.items()
    ):
        raise CheckpointError(
            f"the test of run {run_id} was forecast anew and is not what it was: its weights or "
            f"the version that forecasts are others; restore them"
        )


def reopen_test(tracker: Tracker, candidate: Run, beside: Sequence[Run]) -> Mapping[str, LossPanel]:
    """{run_id: test losses} of a candidate whose test a verdict has opened, and of the baselines
    beside it: to read one's own result again is no look.

    Raises UsageError where no verdict has looked. Raises as `open_losses`.
    """
    looks = tracker.judgings.test_looks(candidate.run_id)
    if not any(look["judging_id"] for look in looks):
        raise UsageError(
            f"no verdict has opened the test of run {candidate.run_id}; ask for one: foresweep "
            f"verdict {candidate.run_id}"
        )
    return {run.run_id: _load(run, SEALED) for run in (candidate, *beside)}


def reveal(tracker: Tracker, run: Run, *, why: str) -> dict[str, float]:
    """A run's test scores by full name, the look on record before they are read or made; none of a
    run that was logged without. Raises CheckpointError where they can no longer be made."""
    make = run.sweep_id is not None and run.state == RunState.COMPLETE
    lacking = unopened(tracker, [run] if make and not tracker.judgings.has_test(run.run_id) else [])
    scores = tracker.reveal_test(run.run_id, why=why)
    return forecast_tests(tracker, lacking).get(run.run_id, scores)


def has_losses(run: Run, part: str = "val") -> bool:
    """Are the run's losses of a part on this disk?"""
    return run.forecasts_path is not None and (Path(run.forecasts_path) / part / LOSSES).is_file()


def _load(run: Run, part: str) -> LossPanel:
    panel = load_losses(_file(run, part))
    _require_own(run, part, panel.fingerprint)
    return panel


def _require_own(run: Run, part: str, fingerprint: str) -> None:
    if fingerprint != run.fingerprints.get(part):
        raise CheckpointError(
            f"the losses of run {run.run_id} on {part} are of other windows than its record says; "
            f"its files were replaced: train it again with --again"
        )


def _file(run: Run, part: str) -> Path:
    """Raises CheckpointError where it is not there."""
    if run.forecasts_path is None:
        raise CheckpointError(
            f"run {run.run_id} has no losses on record; only runs of a sweep can be judged, others "
            f"by: foresweep verdict --losses FILE --benchmark NAME"
        )
    path = Path(run.forecasts_path) / part / LOSSES
    if not path.is_file():
        raise CheckpointError(
            f"the losses of run {run.run_id} are gone ({path}); mount the folder of its runs again "
            f"or train it anew with --again"
        )
    return path
