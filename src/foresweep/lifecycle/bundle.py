"""A run in one file for others: weights, card, verdict, and the losses that the verdict came from.

    bundle.json     the run, its verdict as it was told, trials counted, sha256 of every other file
    example.py      how to forecast with it
    runs/RUN/checkpoint/...     weights, config and card (of an ensemble: of every member)
    cases.json      what was judged, without the losses: trials, baselines, their scores on tune
    losses/N.val.npz, losses/N.test.npz     losses of case N on val; of test where it was opened

Whoever has it judges again from the losses, without the database: `foresweep verdict --bundle`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresweep import __version__
from foresweep.data.files import (
    UNPACKING,
    first_line,
    read_json,
    read_npz,
    require_room,
    write_bytes_atomic,
)
from foresweep.data.panel import Panel
from foresweep.data.reading.frames import Source
from foresweep.errors import CheckpointError, DataError, UsageError
from foresweep.evaluation.predict import Forecaster
from foresweep.lifecycle.champion import checkpoint_of
from foresweep.lifecycle.inference import LoadedModel
from foresweep.models.base import (
    DEFAULT_LEVELS,
    OURS,
    Checkpoint,
    Levels,
    Resources,
    brought_by,
    installed,
)
from foresweep.models.checkpoint import CARD, sha256_of
from foresweep.models.ensemble import member_checkpoints
from foresweep.models.registry import ENSEMBLE
from foresweep.records import Run, Verdict
from foresweep.selection.sealed import reopen_test
from foresweep.selection.verdict.case import Case, PartLosses, Weights, part_losses
from foresweep.selection.verdict.gates import Opened, judge_all
from foresweep.selection.verdict.runs import ask
from foresweep.tracker.tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
BUNDLE, CASES, EXAMPLE = "bundle.json", "cases.json", "example.py"
APART = ("sharpe", "targets", "notes", "cones", "economy", "surrogates", "declared")
"""Of a verdict: said beside it, from more than its losses."""
NOT_STORED = ("val", "suspicions")
PACKAGES = '"foresweep[models]"'
EXAMPLE_TEXT = '''\
"""Forecast with this bundle: first pip install "foresweep[models]"

Then: python example.py prices.csv
"""

import sys
from pathlib import Path

from foresweep.lifecycle.bundle import open_bundle

with open_bundle(Path(__file__).parent) as bundle:
    print(bundle.run["run_id"], bundle.told["outcome"] if bundle.told else "not judged")
    print(bundle.predict(sys.argv[1] if len(sys.argv) > 1 else "demo"))
'''


def write_bundle(tracker: Tracker, run_id: str, path: Path) -> dict[str, Any]:
    """Write a run's bundle as a zip, whole or not at all; what `bundle.json` says.

    Raises NotFound, UsageError where trials were added since the verdict, so that it cannot come
    out again, CheckpointError where weights or losses are gone.
    """
    run = tracker.get_run(run_id)
    checkpoint = checkpoint_of(run)
    checkpoints = _checkpoints(checkpoint)
    content: dict[str, bytes] = {EXAMPLE: _example({c.model for c in checkpoints}).encode()}
    for one in checkpoints:
        owner = (
            run.run_id if one is checkpoint else str(one.card.get("run_id", one.path.parent.name))
        )
        for name in (CARD, *one.card["files"]):
            content[f"runs/{owner}/{checkpoint.path.name}/{name}"] = (one.path / name).read_bytes()
    told = _told(tracker, run)
    if told is not None:
        content |= _evidence(tracker, told)
    said: dict[str, Any] = {
        "format": FORMAT,
        "foresweep": __version__,
        "run": _run_json(run),
        "checkpoint": f"runs/{run.run_id}/{checkpoint.path.name}",
        "verdict": None if told is None else _of_run(told, run)["content"],
        "judged_at": None if told is None else _of_run(told, run)["judged_at"].isoformat(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    }
    content[BUNDLE] = (json.dumps(said, indent=2) + "\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(content):
            packed.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content[name])
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    return said


def _example(models: Iterable[str]) -> str:
    """example.py, which names the packages of plug-ins, too."""
    points = (point for model in models for point in installed().get(model, ()))
    plugins = sorted({brought_by(point) for point in points} - {OURS})
    return EXAMPLE_TEXT.replace(PACKAGES, " ".join((PACKAGES, *plugins)))


def _checkpoints(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoint, and of an ensemble its members' that are more than a config."""
    members = member_checkpoints(checkpoint) if checkpoint.model == ENSEMBLE else []
    return [checkpoint, *(m for m in members if m.path != checkpoint.path)]


def _told(tracker: Tracker, run: Run) -> list[Mapping[str, Any]] | None:
    """The rows of the newest judging of a run that ended: its own and those judged with it."""
    ended = [v for v in tracker.judgings.verdicts(run.run_id) if v["outcome"]]
    if not ended:
        return None
    every = tracker.judgings.verdicts()
    return [v for v in every if v["judging_id"] == ended[-1]["judging_id"]]


def _of_run(told: Sequence[Mapping[str, Any]], run: Run) -> Mapping[str, Any]:
    return next(row for row in told if row["run_id"] == run.run_id)


def _run_json(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "model": run.model_name,
        "hyperparams": dict(run.hyperparams),
        "metrics": run.json_metrics,
        "seed": run.seed,
        "git_commit": run.git_commit,
        "created_at": run.timestamp,
        "sweep_id": run.sweep_id,
        "fingerprints": dict(run.fingerprints),
    }


def _evidence(tracker: Tracker, told: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Cases and losses of a judging, once they are seen to give its verdicts again."""
    cases, vals, tests, number = [], [], [], None
    for row in told:
        verdict = row["content"]
        question = ask(tracker, row["run_id"])
        case = question.case(int(verdict["judged_number"]), verdict["num_trials"])
        val, test = case.val(), None
        if verdict["look_number"] is not None:
            number = int(verdict["look_number"])
            panels = reopen_test(tracker, question.candidate, [*question.baselines.values()])
            by_name = {n: panels[r.run_id] for n, r in question.compared.items()}
            test = part_losses(by_name, case.metric)
        cases.append(case)
        vals.append(val)
        tests.append(test)
    again = _judged(cases, tests, number)
    for row, found in zip(told, again, strict=True):
        if differing := _differing(row["content"], found):
            raise UsageError(
                f"the verdict on run {row['run_id']} does not come out again from what is on "
                f"record ({differing}): trials were added or removed since; judge it anew: "
                f"foresweep verdict {row['run_id']}"
            )
    content = {CASES: (json.dumps({"look_number": number, "cases": [*map(_case_json, cases)]},
                                  indent=2) + "\n").encode()}  # fmt: skip
    for n, (val, test) in enumerate(zip(vals, tests, strict=True)):
        content[f"losses/{n}.val.npz"] = _npz(val)
        if test is not None:
            content[f"losses/{n}.test.npz"] = _npz(test)
    return content


def _judged(
    cases: Sequence[Case], tests: Sequence[PartLosses | None], number: int | None
) -> tuple[Verdict, ...]:
    """The verdicts on cases from their losses. Raises DataError where a test is asked for that was
    never opened."""

    def opened(places: Sequence[int]) -> Opened:
        parts = [tests[n] for n in places]
        if number is None or any(part is None for part in parts):
            raise DataError("the losses pass the gates of val, and those of test are not there")
        return Opened(number, tuple(part for part in parts if part is not None))

    return judge_all(cases, opened)


def _differing(told: Mapping[str, Any], found: Verdict) -> str:
    """Names of what two verdicts do not share, "" where they are one."""
    again = json.loads(json.dumps(found.without_test()))
    names = [k for k, v in again.items() if k not in APART and k in told and told[k] != v]
    return ", ".join(names)


def _case_json(case: Case) -> dict[str, Any]:
    found = {f.name: getattr(case, f.name) for f in fields(case) if f.name not in NOT_STORED}
    return found | {"weights": asdict(case.weights)}


def _npz(part: PartLosses) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, names=np.array(part.names), raw=part.raw, scale=part.scale,
        stride=np.array(-1 if part.stride is None else part.stride), items=np.array(part.items),
    )  # fmt: skip
    return buffer.getvalue()


# Read again, anywhere.


@dataclass(slots=True, eq=False)
class Bundle:
    """A bundle, every file verified. Not frozen: an unpacked zip is removed when it is closed."""

    folder: Path
    said: Mapping[str, Any]
    _unpacked: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unpacked is not None:
            self._unpacked.cleanup()

    @property
    def run(self) -> Mapping[str, Any]:
        """run_id, model, hyperparams, metrics, seed, git_commit."""
        found: Mapping[str, Any] = self.said["run"]
        return found

    @property
    def told(self) -> Mapping[str, Any] | None:
        """The verdict as it was told, less what comes from test; None: it was never judged."""
        found: Mapping[str, Any] | None = self.said["verdict"]
        return found

    def forecaster(self, resources: Resources | None = None) -> Forecaster:
        """Its checkpoint, loaded. Raises CheckpointError."""
        return Forecaster.load(self.folder / self.said["checkpoint"], resources)

    def predict(
        self, source: Source | Panel, *, horizon: int | None = None, levels: Levels = DEFAULT_LEVELS
    ) -> pd.DataFrame:
        """Quantiles of the next closes, as `load_champion(...).predict` gives them."""
        return LoadedModel(self.forecaster()).predict(source, horizon=horizon, levels=levels)

    def verdict(self) -> Verdict:
        """The verdict, judged again from the losses. Raises UsageError where the run was never
        judged, DataError where it is not the verdict that the bundle tells."""
        if self.told is None:
            raise UsageError(f"run {self.run['run_id']} had no verdict when it was bundled")
        stored = read_json(self.folder / CASES)
        cases, tests = [], []
        for n, found in enumerate(stored["cases"]):
            val = _part(self.folder / f"losses/{n}.val.npz")
            test = self.folder / f"losses/{n}.test.npz"
            tests.append(_part(test) if test.is_file() else None)
            cases.append(_case(found, val))
        verdicts = _judged(cases, tests, stored["look_number"])
        mine = next(v for v in verdicts if v.candidate == self.told["candidate"])
        if differing := _differing(self.told, mine):
            raise DataError(f"the losses give another verdict than the bundle tells: {differing}")
        return mine


def open_bundle(path: Path | str) -> Bundle:
    """The bundle in a zip or in the folder it was unpacked to. Raises CheckpointError naming a file
    that is missing or altered, UsageError for what is no bundle."""
    place, unpacked = Path(path), None
    if not place.is_dir():
        unpacked = tempfile.TemporaryDirectory(prefix="foresweep-bundle-")
        try:
            with zipfile.ZipFile(place) as packed:
                require_room(packed)
                packed.extractall(unpacked.name)
        except UNPACKING as error:
            unpacked.cleanup()
            raise UsageError(
                f"{path} is no bundle: {first_line(error)}; see: foresweep export bundle"
            ) from error
        place = Path(unpacked.name)
    if not (place / BUNDLE).is_file():
        raise UsageError(f"{path} is no bundle: it has no {BUNDLE}; see: foresweep export bundle")
    said = read_json(place / BUNDLE)
    for name, wanted in said["files"].items():
        file = place / name
        if not file.is_file():
            raise CheckpointError(f"{path}: {name} is missing; the bundle is incomplete")
        if sha256_of(file) != wanted:
            raise CheckpointError(f"{path}: {name} was altered after it was bundled")
    return Bundle(place, said, unpacked)


def _part(file: Path) -> PartLosses:
    stored = read_npz(file)
    stride = int(stored["stride"])
    return PartLosses(
        tuple(map(str, stored["names"])), stored["raw"], stored["scale"],
        stride=None if stride < 0 else stride, items=tuple(map(str, stored["items"])),
    )  # fmt: skip


def _case(found: Mapping[str, Any], val: PartLosses) -> Case:
    known = {f.name for f in fields(Case)}
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in known
    }
    given |= {"weights": Weights(**found["weights"]), "val": lambda: val}
    return Case(**given)
