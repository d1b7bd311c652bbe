"""Quantiles of mixtures of Student-t distributions, by inverting their distribution function.

Nothing is drawn, so nothing is left to chance: a median of 64 draws cost a tiny Toto 2 % of its
skill. Every cell and level is a root of F(x) = p, found by Halley's steps (Newton's, with the slope
of the density) inside a bracket that always holds it. The distribution function of Student's t is
an incomplete beta function and dear, so a good approximation leads next to the root first, and
scipy's own then takes one step, rarely two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from foresweep.models.toto.network import Mixture

Cdf: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The distribution function of Student's t at [...], with degrees of freedom [...]."""

NEAR = 1e-2
"""A last step is at most this share of the length on which the density bends: what is left is its
cube."""
NARROW = 1e-6
"""A bracket this narrow, in the mixture's mean scale, is a root."""
NEGLIGIBLE = 1e-6
"""Components with a smaller share bend nothing."""
ROUNDS = 100
"""More than bisection alone would take; only what is not finite gets there."""
APPROACH, CLOSE = 12, 0.05
"""Rounds by the approximation at most, and its last step."""


def quantiles(mixture: Mixture, levels: Sequence[float]) -> Tensor:
    """[..., Q] quantiles of mixtures [..., K], float64 on the CPU, in the mixtures' own units; NaN
    where a parameter is.

    Exact to 1e-6 of the mixture's mean scale and better (tests/models/toto/test_quantiles.py).
    """
    wide = [t.detach().cpu().double() for t in mixture.parts]
    own = Mixture(*(t.reshape(-1, 1, t.shape[-1]) for t in wide))
    asked = torch.tensor(levels, dtype=torch.float64)
    df, loc, scale, share = own.df, own.loc, own.scale, own.shares
    # A component's quantile lies between those of the normal and of t with two degrees of freedom,
    # its lightest and heaviest tails here, and the mixture's between those of its components.
    light = loc + scale * torch.special.ndtri(asked)[:, None]
    heavy = loc + scale * ((2 * asked - 1) / (2 * asked * (1 - asked)).sqrt())[:, None]
    low, high = torch.minimum(light, heavy).amin(-1), torch.maximum(light, heavy).amax(-1)
    start = (share * (light + (heavy - light) * (2 / df) ** 1.3)).sum(-1)
    log_peak = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - (math.pi * df).log() / 2
    peak = share * log_peak.exp() / scale
    mixed = [t.expand(-1, len(levels), -1).flatten(0, 1) for t in (df, loc, scale, share, peak)]
    bounds = [t.flatten() for t in (low, high, asked.expand_as(low))]
    cells = _Cells(*mixed, *bounds)
    room = 0.1 * (cells.high - cells.low)  # the approximation's own root may lie a little outside
    wider = replace(cells, low=cells.low - room, high=cells.high + room)
    close = _root(_roughly, wider, start.flatten(), APPROACH, CLOSE)
    found = _root(_exactly, cells, close.clamp(cells.low, cells.high), ROUNDS, NEAR)
    return found.view(*mixture.df.shape[:-1], len(levels))


@dataclass(frozen=True, slots=True)
class _Cells:
    """M cells: a mixture of K components each, the level asked, and a bracket around its
    quantile."""

    df: Tensor  # [M, K]
    loc: Tensor  # [M, K]
    scale: Tensor  # [M, K]
    share: Tensor  # [M, K]
    peak: Tensor  # [M, K] density at loc
    low: Tensor  # [M]
    high: Tensor  # [M]
    level: Tensor  # [M]

    def some(self, which: Tensor) -> _Cells:
        """Those where `which` [M] is true."""
        return _Cells(*(getattr(self, f.name)[which] for f in fields(self)))


def _root(cdf: Cdf, cells: _Cells, x: Tensor, rounds: int, near: float) -> Tensor:
    """[M] where the mixtures' distribution function is at its level, from `x` [M] on.

    A step that leaves the bracket, or is not half the one before, is a bisection instead. The
    bracket closes with every round, so this ends whatever the mixture looks like.
    """
    found, left = x.clone(), torch.arange(len(x))
    before = torch.full_like(x, math.inf)
    for _ in range(rounds):
        off = x[:, None] - cells.loc
        away = off / cells.scale
        square = away * away
        above = (cells.share * cdf(away, cells.df)).sum(-1) - cells.level
        each = cells.peak * (-(cells.df + 1) / 2 * torch.log1p(square / cells.df)).exp()
        density = each.sum(-1)
        bend = -(each * (cells.df + 1) * away / ((cells.df + square) * cells.scale)).sum(-1)
        low, high = torch.where(above < 0, x, cells.low), torch.where(above < 0, cells.high, x)
        step = above / density
        step = step / (1 - step * bend / (2 * density)).clamp(0.5, 2.0)
        there, size = x - step, step.abs()
        trusted = (there >= low) & (there <= high) & (size <= before / 2)
        x = torch.where(trusted, there, (low + high) / 2)
        found[left] = x
        # A component's density bends on its scale, or, far off, on the distance: no narrow one is
        # stepped over.
        length = torch.maximum(cells.scale, off.abs() / (cells.df + 1))
        length = length.masked_fill(cells.share < NEGLIGIBLE, math.inf).amin(-1)
        closed = high - low <= NARROW * (cells.share * cells.scale).sum(-1)
        on = ~(closed | (trusted & (size <= near * length)))
        if not on.any():
            break
        left, x, before = left[on], x[on], torch.where(trusted, size, math.inf)[on]
        cells = replace(cells, low=low, high=high).some(on)
    return found


def _exactly(x: Tensor, df: Tensor) -> Tensor:
    from scipy.special import stdtr

    below: Tensor = torch.from_numpy(stdtr(df.numpy(), x.numpy()))
    return below


def _roughly(x: Tensor, df: Tensor) -> Tensor:
    """To 2e-4 at two degrees of freedom, 1e-6 at four, better beyond: the normal score of Hill
    1970, "Algorithm 395: Student's t-distribution", Communications of the ACM 13."""
    a = df - 0.5
    b = 48 * a * a
    s = a * torch.log1p(x * x / df)
    higher = (((-0.4 * s - 3.3) * s - 24) * s - 85.5) / (0.8 * s * s + 100 + b)
    below: Tensor = torch.special.ndtr(torch.copysign(s.sqrt() * (1 + (s + 3 + higher) / b), x))
    return below
