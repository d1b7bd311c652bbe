"""Other ways to propose and to prune: what the defaults of `smart` were chosen against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from search_curves import Curves
from search_peers import Asha
from search_replay import OBJECTIVE, RACE, Make, Method, Ours, tpe

from foresweep.search.pruning import Hyperband, Racing
from foresweep.search.tpe import TpeSampler


class Variant(TpeSampler):
    """TpeSampler with other settings of Optuna's sampler, or another of its samplers."""

    how: Callable[[int, int], Any]

    def _optunas(self, seed: int, *, liar: bool) -> Any:
        return self.how(seed, self.startup)


def by(how: Callable[[int, int], Any], **settings: Any) -> Make:
    def make(curves: Curves, seed: int) -> TpeSampler:
        plain = tpe(curves, seed, **settings)
        made = Variant.__new__(Variant)
        made.__dict__.update(plain.__dict__)
        made.how = how
        return made

    return make


def optunas_tpe(seed: int, startup: int, **how: Any) -> Any:
    from optuna.samplers import TPESampler

    gamma = how.pop("gamma", None)
    made = TPESampler(seed=seed, n_startup_trials=startup, constant_liar=False, **how)
    if gamma is not None:
        made._gamma = gamma  # its argument is deprecated and says so each time
    return made


def gp(seed: int, startup: int) -> Any:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=startup)


@dataclass
class Race(Racing):
    """A race that waits for so many scorings, asks to be lost so many times in a row, at another
    p, by a margin, or lets go on who would catch up if the gap went on closing as it did."""

    wait: int = 0
    in_a_row: int = 1
    p: float = 0.05
    margin: float = 0.0
    closing: bool = False
    leeway: float = 1.0  # the best run is looked at with so many times less training
    last: float = 8  # scorings of a training
    lost: dict[int, int] = field(default_factory=dict)

    def should_prune(
        self,
        trial: int,
        step: int,
        scores: Mapping[str, float],
        losses: Mapping[str, Sequence[float]],
    ) -> str | None:
        mine = tuple(losses[self.metric])
        seen = self.running.setdefault(trial, {})
        seen[step] = mine
        rival = None if self.best is None else self.best.until(int(step / self.leeway))
        lost = rival is not None and self._loses(np.array(mine), np.array(rival))
        self.lost[trial] = self.lost.get(trial, 0) + 1 if lost else 0
        if len(seen) <= self.wait or self.lost[trial] < self.in_a_row:
            return None
        if self.closing and self._catches_up(seen):
            return None
        return "lost"

    def _loses(self, mine: Any, rival: Any) -> bool:
        from scipy.stats import wilcoxon

        if mine.mean() <= rival.mean() * (1 + self.margin):
            return False
        found = wilcoxon(mine - rival, alternative="greater", zero_method="zsplit")
        return bool(found.pvalue < self.p)

    def _catches_up(self, seen: Mapping[int, tuple[float, ...]]) -> bool:
        """Would the gap be closed at the end, if it went on as between the last two scorings?"""
        steps = sorted(seen)[-2:]
        gaps = []
        for step in steps:
            rival = self.best.until(step) if self.best else None
            if rival is None:
                return True
            gaps.append(np.mean(seen[step]) / np.mean(rival) - 1)
        if len(gaps) < 2:
            return True
        return bool(gaps[1] + (gaps[1] - gaps[0]) * (self.last - len(seen)) <= 0)


def race(**how: Any) -> Callable[[], Racing]:
    return partial(Race, OBJECTIVE, **how)


TPES: Mapping[str, Make] = {
    "as it is": tpe,
    "independent": by(partial(optunas_tpe, multivariate=False)),
    "startup 5": partial(tpe, startup=5),
    "startup 20": partial(tpe, startup=20),
    "gamma .2": by(
        partial(optunas_tpe, multivariate=True, group=True, gamma=lambda n: min(25, -(-n // 5)))
    ),
    "gamma .3": by(
        partial(
            optunas_tpe, multivariate=True, group=True, gamma=lambda n: min(25, -(-3 * n // 10))
        )
    ),
    "100 candidates": by(partial(optunas_tpe, multivariate=True, group=True, n_ei_candidates=100)),
    "GP": by(gp),
}
RACES: Mapping[str, Callable[[], Racing]] = {
    "as it is": RACE,
    "wait 1": race(wait=1),
    "wait 2": race(wait=2),
    "wait 3": race(wait=3),
    "p .01": race(p=0.01),
    "p .001": race(p=0.001),
    "p .2": race(p=0.2),
    "p .01, wait 1": race(p=0.01, wait=1),
    "margin 1 %": race(margin=0.01),
    "margin 1 %, wait 1": race(margin=0.01, wait=1),
    "twice": race(in_a_row=2),
    "closing": race(closing=True),
    "closing, p .01": race(closing=True, p=0.01),
    "closing, p .2": race(closing=True, p=0.2),
    "closing, wait 2": race(closing=True, wait=2),
    "leeway 1.5": race(leeway=1.5),
    "leeway 2": race(leeway=2.0),
    "leeway 2, p .2": race(leeway=2.0, p=0.2),
    "leeway 3": race(leeway=3.0),
}


class Later(Hyperband):
    """Hyperband whose first rung comes after so many scorings, or that keeps one in two."""

    def __init__(
        self, objective: str, max_steps: int, *, rung: int = 1, reduction: int = 3
    ) -> None:
        from optuna.pruners import HyperbandPruner

        super().__init__(objective, max_steps)
        self.study.pruner = HyperbandPruner(
            min_resource=rung * max_steps // 8, max_resource=max_steps, reduction_factor=reduction
        )


HALVINGS: Mapping[str, Callable[..., Hyperband]] = {
    "first rung 2": partial(Later, rung=2),
    "first rung 3": partial(Later, rung=3),
    "one in two": partial(Later, reduction=2),
    "one in four": partial(Later, reduction=4),
}
VARIANTS: Mapping[str, Method] = {
    **{f"TPE alone, {name}": Ours(sampler=make) for name, make in TPES.items()},
    **{f"TPE alone, racing, {name}": Ours(racing=make) for name, make in RACES.items()},
    **{f"TPE alone, hyperband, {name}": Ours(hyperband=make) for name, make in HALVINGS.items()},
    "TPE alone, both, closing": Ours(racing=race(closing=True), hyperband=Hyperband),
    "random, racing, closing": Ours(sampler=None, racing=race(closing=True)),
    "random, racing, leeway 2": Ours(sampler=None, racing=race(leeway=2.0)),
    "smart, racing, closing": Ours(priority=True, racing=race(closing=True)),
    "smart, racing, leeway 2": Ours(priority=True, racing=race(leeway=2.0)),
    "Ray Tune ASHA, grace 2": Asha({"grace_period": 2}),
    "Ray Tune ASHA, grace 3": Asha({"grace_period": 3}),
    "Ray Tune ASHA, reduction 2": Asha({"reduction_factor": 2}),
}
