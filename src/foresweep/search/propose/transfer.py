"""What another model's best runs say of this one: their shared hyperparameters, tried first.

Only what every trained family means alike is carried over (`CARRIED`), moved into the space of the
model that is swept. The learning rate is scaled by the networks' widths, lr * width of the source /
width of the target: under AdamW the best rate of hidden weights falls as 1 / width (Yang et al.
2022, Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer). There
it is a law within one family whose parametrisation was made for it; here it is a first guess.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from foresweep.errors import ForesweepError, UsageError
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.metrics import METRICS, QUANTILE_METRICS, ranked_by
from foresweep.models import registry
from foresweep.models.base import Facts, hyperparameters, make_config
from foresweep.records import Run, RunState
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal, load_space, within
from foresweep.search.trial import fitting
from foresweep.space import Choice, Dimension, Int, SearchSpace
from foresweep.tracker.queries.runs import by_config, median_seed
from foresweep.tracker.tracker import Tracker

TRANSFER = "transfer"
MOST = 3
"""Configs handed to each model."""
LR = "lr"
WIDTHS = ("d_model", "embed_dim")
"""Names under which a family keeps the width of its network."""
CARRIED = (
    *("context_length", LR, "batch_size", "max_steps", "warmup_fraction", "schedule"),
    *("weight_decay", "beta2", "gradient_clip", "ema_decay", "patience", "sign_flip", "time_scale"),
)
"""Hyperparameters that mean the same in another family."""
CARRIED_WITH_WEIGHTS = ("finetune", "freeze", "lora_r", "lora_alpha", "lora_dropout")
"""Those that say how pretrained weights are tuned: none of them is about training from scratch."""
LORA = "lora_"
ANY_CONTEXT = 1_000_000


@dataclass(frozen=True, slots=True)
class Mapped:
    """A run's config in another family's words, and what was done to it, value by value."""

    config: Mapping[str, Any]
    said: tuple[str, ...] = field(default=())


def transfer_proposals(
    plan: SweepPlan,
    tracker: Tracker,
    fingerprints: Mapping[str, str],
    *,
    before: datetime | None = None,
) -> tuple[Proposal, ...]:
    """The configs that the plan's `transfer_from` hands to each other model of a sweep on these
    windows, best first, handed round the models; () where nothing was asked for.

    They are of its best complete trained runs by the objective on tune (of several objectives the
    one that ranks), on the same windows of tune and val and from the same start, pretrained or
    not; each says in its note where it comes from. `before` leaves later runs out, for a sweep that
    goes on. Raises UsageError where there is no such run.
    """
    if plan.transfer_from is None:
        return ()
    best = _best(plan, tracker, fingerprints, before)
    targets = [m for m in plan.trained if m != plan.transfer_from]
    lists = [list(_for(model, best, plan)) for model in targets]
    rounds = itertools.zip_longest(*lists)
    return tuple(p for one_round in rounds for p in one_round if p is not None)


def _best(
    plan: SweepPlan, tracker: Tracker, fingerprints: Mapping[str, str], before: datetime | None
) -> list[Run]:
    """Runs of the source, one a config, best first by tune. Raises UsageError for none."""
    metric = ranked_by(plan.objective)
    known = tracker.get_runs(plan.transfer_from, fingerprint=fingerprints["val"])
    if before is not None:
        known = [r for r in known if r.finished_at is not None and r.finished_at <= before]
    fit = [r for r in known if _is_fit(r, plan, fingerprints["tune"], metric)]
    chosen = [median_seed(group, metric) for group in by_config(fit)]
    if not chosen:
        start = f"of weights ({plan.pretrained})" if plan.pretrained else "from scratch"
        raise UsageError(
            f"--transfer-from {plan.transfer_from}: it has no complete run {start} with a "
            f"tune_{metric} on these windows; make some: {_command(plan)}"
        )
    badness = METRICS[metric].badness
    return sorted(chosen, key=lambda r: (badness(r.metrics[f"tune_{metric}"]), r.run_id))


def _is_fit(run: Run, plan: SweepPlan, tune: str, metric: str) -> bool:
    """Was it trained to its end, from the same start and on the same windows of tune, and not into
    last-value in disguise?"""
    config = run.hyperparams
    return (
        run.state is RunState.COMPLETE
        and run.fingerprints.get("tune") == tune
        and run.score(f"tune_{metric}") is not None
        and bool(config.get("pretrained")) == bool(plan.pretrained)
        and config.get("finetune") != "none"
        and (metric in QUANTILE_METRICS or EQUALS_LAST_VALUE not in run.tags)
    )


def _command(plan: SweepPlan) -> str:
    """What makes runs of the source on the windows of a plan."""
    said = {
        "--model": plan.transfer_from,
        "--data": plan.data,
        "--horizon": plan.cut.horizon,
        "--stride": plan.cut.stride,
        "--max-context": plan.cut.max_context,
        "--pretrained": plan.pretrained,
    }
    words = [w for name, value in said.items() if value is not None for w in (name, str(value))]
    return shlex.join(["foresweep", "sweep", *words])


def _for(model: str, best: Sequence[Run], plan: SweepPlan) -> Iterator[Proposal]:
    """At most MOST distinct configs for one model."""
    space = _space(model, plan)
    metric = f"tune_{ranked_by(plan.objective)}"
    seen: list[Mapping[str, Any]] = []
    for place, run in enumerate(best, 1):
        mapped = map_config(run, model, space, plan)
        if not mapped.config or mapped.config in seen:
            continue
        seen.append(mapped.config)
        yield Proposal(
            model,
            {**plan.base, **mapped.config, **plan.spaces.fixed},
            f"{TRANSFER}: from {run.run_id}",
            note=f"{TRANSFER} from {run.model_name}: number {place} of its {len(best)} configs by "
            f"{metric} ({run.metrics[metric]:.6g}), run {run.run_id}: {', '.join(mapped.said)}",
        )
        if len(seen) == MOST:
            return


def _space(model: str, plan: SweepPlan) -> SearchSpace:
    """What the target is searched in; empty for a family without a space file."""
    if model not in plan.spaces.texts and registry.space_text(model) is None:
        return SearchSpace({})
    return within(
        load_space(model, plan.start, plan.spaces).space, plan.step_cap, plan.cut.max_context
    )


def map_config(run: Run, model: str, space: SearchSpace, plan: SweepPlan) -> Mapped:
    """A run's config for another family: what both mean alike and count in the same unit, the
    learning rate scaled by width, each value moved to the nearest of the target's space. Values
    that the space has no such thing for, or that are open (None), are left to the target."""
    names = CARRIED + (CARRIED_WITH_WEIGHTS if plan.pretrained else ())
    theirs, ours = (
        {h.name: h.unit for h in hyperparameters(registry.get_model(m).Config)}
        for m in (run.model_name, model)
    )
    config: dict[str, Any] = {}
    said: list[str] = []
    for name in names:
        value = run.hyperparams.get(name)
        if value is None or name not in ours or ours[name] != theirs.get(name):
            continue
        if name.startswith(LORA) and config.get("finetune") != "lora":
            continue
        words = f"{name} {_word(value)}"
        if name == LR:
            value, words = _scaled(run, model, config, plan)
        nearest = moved(value, space.dimensions.get(name))
        if nearest is None or not space.is_present(name, config):
            continue
        config[name] = nearest
        said.append(words if nearest == value else f"{words}, moved to {_word(nearest)}")
    return Mapped(config, tuple(said))


def _scaled(run: Run, model: str, config: Mapping[str, Any], plan: SweepPlan) -> tuple[float, str]:
    """The learning rate at the target's width, and how it was reckoned."""
    lr, width = float(run.hyperparams[LR]), _width(run.hyperparams)
    target = _width_of(model, config, plan)
    if width is None or target is None:
        return lr, f"{LR} {_word(lr)} as it is (the width of a network is not known)"
    if width == target:
        return lr, f"{LR} {_word(lr)} (both networks are {width} wide)"
    scaled = lr * width / target
    return scaled, f"{LR} {_word(lr)} x {width}/{target} (widths) = {_word(scaled)}"


def _width_of(model: str, config: Mapping[str, Any], plan: SweepPlan) -> int | None:
    """The width of the target's network in the sweep's size or weights; None where the family does
    not say, or refuses the config, as it will once more, with words, when it is to be tried."""
    family = registry.get_model(model)
    facts = Facts(plan.cut.horizon, plan.cut.max_context or ANY_CONTEXT, train_bars=1)
    values = {**plan.base, **config, **plan.spaces.fixed}
    try:
        made = make_config(family.Config, fitting(family.Config, values), model=model)
        resolved = registry.resolved(family, made, facts)
    except ForesweepError:
        return None
    return _width({n: getattr(resolved, n, None) for n in WIDTHS})


def _width(config: Mapping[str, Any]) -> int | None:
    return next((int(config[n]) for n in WIDTHS if config.get(n)), None)


def moved(value: Any, dimension: Dimension | None) -> Any:
    """The value of a space that is nearest; the value itself where the space says nothing of it,
    None where it has nothing like it."""
    if dimension is None:
        return value
    if isinstance(dimension, Choice):
        if value in dimension.values:
            return value
        numbers = [v for v in dimension.values if _is_number(v)]
        if not numbers or not _is_number(value):
            return None
        return min(numbers, key=lambda v: abs(v - value))
    if not _is_number(value):
        return None
    inside = min(max(value, dimension.low), dimension.high)
    if isinstance(dimension, Int):
        most = (dimension.high - dimension.low) // dimension.step
        steps = min(round((inside - dimension.low) / dimension.step), most)
        return dimension.low + dimension.step * steps
    return float(inside)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
