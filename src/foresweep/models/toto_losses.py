"""Losses of Toto: the authors' own, and the two that sweeps of it ask for.

All take the predicted mixture and the labels in the model's normalised units and give one number a
label. Each keeps a share of the negative log likelihood, without which the mixture's spread, and so
every quantile, would not be learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from foresweep.models.base import DEFAULT_LEVELS
from foresweep.models.toto_mixture import Mixture

LossType: TypeAlias = Literal["combined", "huber", "quantile"]
Loss: TypeAlias = Callable[[Mixture, Tensor], Tensor]

ROBUST_SCALE = 0.1


def make_loss(loss_type: LossType, nll_weight: float, huber_delta: float | None) -> Loss:
    """The loss of (mixture, labels): nll_weight * NLL + (1 - nll_weight) * a second part.

    combined   robust loss of the mean: the authors' `CombinedLoss` (Cohen et al. 2025; Barron 2019
               with alpha 0, scale .1)
    huber      Huber's loss of the mean, divided by its delta so that its slope far out is 1
               whatever the delta
    quantile   twice the mean pinball loss of nine quantiles of a normal distribution with the
               mixture's mean and the variance of its locations and scales (a mixture's own
               quantiles have no closed form; the t components' tails are left out, since their
               variance is unbounded as df nears 2)
    """
    if loss_type == "combined":
        second: Loss = _robust
    else:
        second = _pinball if loss_type == "quantile" else _huber(huber_delta or 1.0)

    def loss(mixture: Mixture, labels: Tensor) -> Tensor:
        return (1 - nll_weight) * second(mixture, labels) - nll_weight * mixture.log_prob(labels)

    return loss


def _robust(mixture: Mixture, labels: Tensor) -> Tensor:
    return torch.log1p(0.5 * ((mixture.mean - labels) / ROBUST_SCALE) ** 2)


def _huber(delta: float) -> Loss:
    def huber(mixture: Mixture, labels: Tensor) -> Tensor:
        error: Tensor = torch.nn.functional.huber_loss(
            mixture.mean, labels, reduction="none", delta=delta
        )
        return error / delta

    return huber


def _pinball(mixture: Mixture, labels: Tensor) -> Tensor:
    levels = torch.tensor(DEFAULT_LEVELS, device=labels.device, dtype=labels.dtype)
    shares, mean = mixture.shares, mixture.mean
    variance = (shares * (mixture.scale**2 + (mixture.loc - mean[..., None]) ** 2)).sum(-1)
    away = torch.special.ndtri(levels) * variance.sqrt()[..., None]
    error = labels[..., None] - (mean[..., None] + away)
    loss: Tensor = torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    return 2 * loss
