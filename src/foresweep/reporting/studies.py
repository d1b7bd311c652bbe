"""Runs as Optuna's studies: handed to optuna-dashboard, and drawn by Optuna's own plots.

A study holds what one model did in one sweep: another model has other hyperparameters, and another
sweep other windows. Its values are the objectives on tune, which is what the search looked at. No
test score is in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foresweep.errors import ForesweepError, UsageError
from foresweep.metrics import METRICS, objectives_of
from foresweep.records import Run, RunState, Sweep, is_sealed
from foresweep.reporting.blocks import Spec
from foresweep.reporting.figures import safe
from foresweep.reporting.views import spaces_of
from foresweep.search.propose.modes import load_space
from foresweep.search.propose.tpe import quiet
from foresweep.space import Choice, Dimension, Start
from foresweep.tracker.tracker import Tracker

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Direction = Literal["minimize", "maximize"]
LONG = 200
"""Letters of a cause that are handed over."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one study."""

    name: str
    num_new: int
    num_known: int  # were there already, and stay as they are


def export_optuna(
    tracker: Tracker, url: str, sweeps: Sequence[Sweep], model: str | None = None
) -> list[Exported]:
    """Write a study for each sweep and each model that ended a run in it; a run that is there
    already is left alone, one that is running or reproduces another is left out.

    Raises UsageError for a place that Optuna cannot write to, or that is this very database.
    """
    _refuse_own(tracker, url)
    wanted = []
    for sweep in sweeps:
        beside = tracker.get_runs(sweep_id=sweep.sweep_id)
        baselines = _baselines(tracker, sweep)
        runs = [r for r in beside if _is_wanted(r)]
        for name in dict.fromkeys(r.model_name for r in runs):
            if model in (None, name):
                mine = [r for r in runs if r.model_name == name]
                wanted.append((sweep, name, mine, baselines))
    if not wanted:
        return []  # and no file is made
    with _quiet():
        storage = _opened(url)
        return [_export(tracker, storage, *one) for one in wanted]


def _baselines(tracker: Tracker, sweep: Sweep) -> list[Run]:
    """Those scored on a sweep's windows, whichever sweep ran them: a later one does not again."""
    windows = {part: sweep.fingerprints.get(part) for part in ("tune", "val")}
    if windows["val"] is None:
        return []
    found = tracker.get_runs(fingerprint=windows["val"], state=RunState.COMPLETE)
    return [r for r in found if r.is_baseline and r.fingerprints.get("tune") == windows["tune"]]


def _is_wanted(run: Run) -> bool:
    return run.state.is_final and not run.is_baseline and run.reproduces is None


def _refuse_own(tracker: Tracker, url: str) -> None:
    """Optuna keeps its own version in a table of the same name as ours."""
    own = tracker.store.path
    if "://" not in url:
        raise UsageError(
            f"{url!r} is no address of a storage; give one as Optuna writes it, such as "
            f"sqlite:///study.db"
        )
    named = url.partition(":///")[2].partition("?")[0]
    is_same_file = own is not None and bool(named) and own.resolve() == Path(named).resolve()
    if is_same_file or url == tracker.store.url.render_as_string(hide_password=False):
        raise UsageError(f"{url} is the database of the runs itself; give a place of its own")


def _opened(url: str) -> Any:
    import optuna

    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy's, a driver's or Optuna's own: told in one line
        raise UsageError(f"Optuna cannot write to {url}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:LONG]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says each study that it makes, and warns of what is experimental in it."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with quiet():
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _export(
    tracker: Tracker,
    storage: Any,
    sweep: Sweep,
    model: str,
    runs: Sequence[Run],
    baselines: Sequence[Run],
) -> Exported:
    import optuna

    metrics = [m for m in objectives_of(sweep.objective) if m in METRICS]
    name = f"{sweep.sweep_id}/{model}"
    study = optuna.create_study(
        storage=storage, study_name=name, load_if_exists=True,
        directions=[_direction(m) for m in metrics],
    )  # fmt: skip
    trials = study.get_trials(deepcopy=False)
    known = {t.user_attrs.get("run_id") for t in trials}
    if not trials:
        study.set_metric_names([_told(m) for m in metrics])
        for key, value in _about(sweep, metrics, baselines).items():
            study.set_user_attr(key, value)
    axes = _axes(sweep, model, runs)
    new = [r for r in runs if r.run_id not in known]
    try:
        study.add_trials(_trial(tracker, run, metrics, axes) for run in new)
    except ValueError as error:  # a word that the study was not made for
        raise UsageError(
            f"study {name} was made before these runs, with other choices: {_first_line(error)}; "
            f"export to a new place"
        ) from error
    return Exported(name, len(new), len(runs) - len(new))


def _direction(metric: str) -> Direction:
    upward = METRICS[metric].higher_is_better and not _has_target(metric)
    return "maximize" if upward else "minimize"


def _has_target(metric: str) -> bool:
    return METRICS[metric].target is not None


def _told(metric: str) -> str:
    """What Optuna calls an objective; where a value is aimed at, the distance from it."""
    target = METRICS[metric].target
    return f"tune_{metric}" if target is None else f"tune_{metric}: distance from {target:g}"


def _value(run: Run, metric: str) -> float | None:
    score = run.score(f"tune_{metric}")
    return METRICS[metric].badness(score) if score is not None and _has_target(metric) else score


def _about(sweep: Sweep, metrics: Sequence[str], baselines: Sequence[Run]) -> dict[str, Any]:
    """The question, and what the baselines scored on the same windows."""
    beside = {_named(r): {f"tune_{m}": r.score(f"tune_{m}") for m in metrics} for r in baselines}
    return {
        "sweep": sweep.sweep_id,
        "mode": sweep.mode,
        "horizon": sweep.horizon,
        "seed": sweep.seed,
        "data": str(sweep.plan.get("data", "")),
        "baselines": beside,
    }


def _named(baseline: Run) -> str:
    """Its model, and the config where it is not the model's first: `random-walk garman-klass`."""
    return f"{baseline.model_name} {baseline.source.partition(': ')[2]}".strip()


def _trial(
    tracker: Tracker, run: Run, metrics: Sequence[str], axes: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    """A run in Optuna's words. One that ended complete without an objective has failed there."""
    import optuna

    values = [v for m in metrics if (v := _value(run, m)) is not None]
    whole = run.state == RunState.COMPLETE and len(values) == len(metrics)
    states = optuna.trial.TrialState
    pruned = run.state == RunState.PRUNED
    params = {n: _plain(run.hyperparams[n]) for n in axes if n in run.hyperparams}
    seen = _series(tracker, run, metrics[0]) if len(metrics) == 1 else {}
    trial = optuna.trial.create_trial(
        state=states.COMPLETE if whole else states.PRUNED if pruned else states.FAIL,
        values=values if whole else None,
        params=params,
        distributions={n: axes[n] for n in params},
        user_attrs=_attrs(run, axes),
        intermediate_values=seen,
    )
    if pruned and seen:
        trial.value = seen[max(seen)]
    trial.datetime_start = _local(run.started_at or run.created_at)
    trial.datetime_complete = _local(run.finished_at or run.started_at or run.created_at)
    return trial


def _series(tracker: Tracker, run: Run, metric: str) -> dict[int, float]:
    """The objective on tune by step, as far as it was looked at on the way."""
    name = f"tune_{metric}"
    if not any(c.name == name for c in tracker.get_curves(run.run_id)):
        return {}
    points = tracker.get_curve(run.run_id, name)
    return {int(step): float(value) for step, value in points if math.isfinite(value)}


def _attrs(run: Run, axes: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """What Optuna has no field for: scores of tune and val, what did not vary, where it stands."""
    scores = {n: v for n, v in run.json_metrics.items() if v is not None and not is_sealed(n)}
    fixed = {n: _plain(v) for n, v in run.hyperparams.items() if n not in axes}
    said: dict[str, Any] = {
        "run_id": run.run_id,
        "state": run.state.value,
        "trial": run.trial_number,
        "seed": run.seed,
        "source": run.source,
        "training_time_seconds": run.training_time_seconds,
        "tags": list(run.tags),
    }
    if run.error:
        said["error"] = run.error.strip().splitlines()[-1][:LONG]
    return {**said, **scores, **{f"config: {n}": v for n, v in fixed.items()}}


def _local(moment: datetime) -> datetime:
    """Optuna keeps the clock of the machine, without a zone."""
    return moment.astimezone().replace(tzinfo=None)


# Hyperparameters as distributions: what the space says, widened to what was tried.


def _axes(sweep: Sweep, model: str, runs: Sequence[Run]) -> dict[str, BaseDistribution]:
    """Of the hyperparameters that the space names or that varied."""
    try:
        start: Start = "pretrained" if sweep.plan.get("pretrained") else "scratch"
        dimensions = load_space(model, start, spaces_of(sweep)).space.dimensions
    except ForesweepError:  # a plug-in that is not installed here: what was tried is known
        dimensions = {}
    found = {}
    for name in dict.fromkeys(n for r in runs for n in r.hyperparams):
        tried = [r.hyperparams[name] for r in runs if name in r.hyperparams]
        if name in dimensions or len({json.dumps(v, default=str) for v in tried}) > 1:
            found[name] = distribution(tried, dimensions.get(name))
    return found


def distribution(tried: Sequence[Any], dimension: Dimension | None = None) -> BaseDistribution:
    """The range of numbers or the choice of words that holds all that was tried, and all of the
    space's `dimension`."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(dimension, Choice):
        ends: tuple[Any, ...] = dimension.values
        by_logs = False
    else:
        ends = () if dimension is None else (dimension.low, dimension.high)
        by_logs = dimension is not None and dimension.log
    every = [_plain(v) for v in (*ends, *tried)]
    if not all(_is_number(v) for v in every):
        known = {json.dumps(v): v for v in every}
        return CategoricalDistribution(list(known.values()))
    low, high = min(every), max(every)
    if isinstance(dimension, Choice) or dimension is None:
        by_logs = low > 0 and high >= 20 * low
    if all(isinstance(v, int) for v in every):
        return IntDistribution(low, high, log=by_logs and low >= 1)
    return FloatDistribution(float(low), float(high), log=by_logs and low > 0)


def _plain(value: Any) -> Any:
    """A value that Optuna can choose: a list becomes its text."""
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else json.dumps(value, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Optuna's own plots. Its parallel coordinates need WebGL code that is compiled on the page, which
# the pages' policy forbids; its importance has no p-value and its front no naive forecast: those
# three are drawn in `figures`.


def slice_plot(axes: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str) -> Spec:
    """The score over each hyperparameter alone, coloured by the order of the trials."""
    from optuna.visualization import plot_slice

    with _quiet():
        study = _in_memory(axes, scores, metric)
        figure = plot_slice(study, params=[safe(n) for n in axes], target_name=safe(metric))
    return _spec(figure)


def contour_plot(axes: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str) -> Spec:
    """Two hyperparameters against each other, the score between the trials as contours."""
    from optuna.visualization import plot_contour

    with _quiet():
        study = _in_memory(axes, scores, metric)
        figure = plot_contour(study, params=[safe(n) for n in axes], target_name=safe(metric))
    return _spec(figure)


def _in_memory(axes: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str) -> Study:
    """A study of these trials, in their order. plotly reads tags in labels: names are escaped."""
    import optuna

    shown = {
        safe(n): [safe(v) if isinstance(v := _plain(x), str) else v for x in values]
        for n, values in axes.items()
    }
    kinds = {n: distribution([v for v in values if v is not None]) for n, values in shown.items()}
    study = optuna.create_study(direction=_direction(metric.partition("_")[2]))
    study.add_trials(_plotted(shown, kinds, n, score) for n, score in enumerate(scores))
    return study


def _plotted(
    shown: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, BaseDistribution],
    n: int,
    score: float,
) -> FrozenTrial:
    import optuna

    params = {name: values[n] for name, values in shown.items() if values[n] is not None}
    return optuna.trial.create_trial(
        params=params, distributions={name: kinds[name] for name in params}, value=score
    )


def _spec(figure: Any) -> Spec:
    """plotly's JSON of a figure of Optuna, less its colours: the page knows light from dark."""
    found: Spec = json.loads(figure.to_json())
    layout = found["layout"]
    for name in ("template", "title", "width", "height"):
        layout.pop(name, None)
    layout["margin"] = {"l": 60, "r": 16, "t": 16, "b": 48}
    for name, axis in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            axis |= {"automargin": True, "zeroline": False, "exponentformat": "e"}
    for trace in found["data"]:
        bar = trace.get("marker", {}).get("colorbar")
        if bar and (bar.get("title") or {}).get("text") == "Trial":
            bar["title"] = {"text": "order"}
    return found


def told(exported: Iterable[Exported], url: str) -> list[str]:
    """What was done, in lines for people."""
    found = list(exported)
    lines = [
        f"{e.name}: {e.num_new} trials"
        + (f"; {e.num_known} were there already" if e.num_known else "")
        for e in found
    ]
    return [*lines, f"Open it: optuna-dashboard {url}"]
