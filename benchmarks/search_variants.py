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

from foresweep.search.propose.tpe import TpeSampler
from foresweep.search.running.pruning import UNJUDGED, Hyperband, Racing


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

    wait: int = UNJUDGED
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
    "from the first scoring": race(wait=0),
    "from the third": race(wait=2),
    "from the fourth": race(wait=3),
    "p .01": race(p=0.01),
    "p .1": race(p=0.1),
    "p .2": race(p=0.2),
    "margin .5 %": race(margin=0.005),
    "lost twice": race(in_a_row=2),
    "who catches up goes on": race(closing=True),
    "half the training": race(leeway=2.0),
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
    "TPE alone, both": Ours(racing=RACE, hyperband=Hyperband),
    "TPE alone, both, first rung 2": Ours(racing=RACE, hyperband=HALVINGS["first rung 2"]),
    "TPE alone, both, first rung 3": Ours(racing=RACE, hyperband=HALVINGS["first rung 3"]),
    "TPE alone, independent, racing": Ours(sampler=TPES["independent"], racing=RACE),
    "TPE alone, gamma .2, racing": Ours(sampler=TPES["gamma .2"], racing=RACE),
    "TPE alone, startup 5, racing": Ours(sampler=TPES["startup 5"], racing=RACE),
    "smart, startup 5, racing": Ours(TPES["startup 5"], priority=True, racing=RACE),
    "Ray Tune ASHA, grace 2": Asha({"grace_period": 2}),
    "Ray Tune ASHA, reduction 2": Asha({"reduction_factor": 2}),
}
