"""What Toto forecasts: the quantiles of its own mixtures, or sampled futures.

Each context is encoded once, whatever the number of samples. The authors' forecaster encodes a
context once a sample, scales the whole chain anew for every patch and keeps a copy of the context's
keys and values for every sample. Here the samples share them, a chain is a few numbers (its running
mean and variance), and only the newest patch is looked at. The same distributions come out, patch
by patch (tests/models/toto/test_decoding.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foresweep.models.base import Levels
from foresweep.models.toto.network import Mixture, fold, hidden_states, masks
from foresweep.models.toto.quantiles import quantiles


@dataclass(frozen=True, slots=True)
class Newest:
    """What the network says of the patch after a chain: in normalised units, and those units."""

    mixture: Mixture  # [N, S, V, P, K]; S is 1 after the context alone
    loc: Tensor  # [N, S, V, 1]
    scale: Tensor  # [N, S, V, 1]

    @property
    def mean(self) -> Tensor:
        """[N, S, V, P] in the series' own units."""
        return self.mixture.mean * self.scale + self.loc

    def sample(self, draws: Tensor) -> Tensor:
        """[N, S, V, P] draws in the series' own units, of uniforms [N, S, V, P, 3]."""
        return without_extremes(draw(self.mixture, draws) * self.scale + self.loc)


class Chains:
    """Futures of contexts [N, V, C], grown patch by patch: `newest` is what comes next, `push` adds
    it. C is a multiple of the patch size; `real` [N, V, C] is False where x is padding."""

    def __init__(self, network: Any, x: Tensor, real: Tensor, samples: int, patches: int) -> None:
        """Encode the contexts; `patches` is how many will be pushed at most."""
        self._network, self._folded = network, fold(network)
        self._layers = list(network.transformer.layers)
        self._length = x.shape[-1] // network.patch_embed.stride
        cache = network.allocate_kv_cache(
            batch_size=x.shape[0],
            num_variates=x.shape[1],
            max_time_steps=x.shape[-1],
            device=x.device,
            dtype=x.dtype,
        )
        hidden, loc, scale = hidden_states(network, x, real, cache)
        self._moments = Moments.of(network.scaler, x, real)
        self._past = [
            Past.of(cache[index], x.shape[:2], samples, patches) if _over_time(layer) else None
            for index, layer in enumerate(self._layers)
        ]
        self.newest = self._says(
            hidden[:, None, :, -1], loc[:, None, :, -1:], scale[:, None, :, -1:]
        )

    def push(self, values: Tensor) -> None:
        """Add a patch [N, S, V, P] to every chain."""
        self._moments = self._moments.after(values)
        loc, scale = self._moments.loc_and_scale(values.dtype)
        x = self._network.patch_embed.projection((values - loc) / scale)
        for layer, past in zip(self._layers, self._past, strict=True):
            x = x + self._attend(layer, layer.norm1(x), past)
            x = x + layer.mlp(layer.norm2(x))
        self._length += 1
        self.newest = self._says(x, loc, scale)

    def _says(self, hidden: Tensor, loc: Tensor, scale: Tensor) -> Newest:
        """Of hidden vectors [N, S, V, D] of the newest patch."""
        return Newest(self._folded.mixture(hidden.unsqueeze(-2)), loc, scale)

    def _attend(self, layer: Any, x: Tensor, past: Past | None) -> Tensor:
        """[N, S, V, D] over the chain's past in time, or over the channels."""
        attention = layer.attention
        mixed: Tensor = attention.wQKV(x)
        parts = mixed.view(*x.shape[:-1], 3, attention.head_dim, attention.num_heads)
        # [N, S, V, head_dim, heads] each
        q, k, v = parts.unbind(-3)
        if past is None:
            own = _across(*(t.movedim(-1, 2) for t in (q, k, v))).movedim(2, -2)
        else:
            q, k, v = (t.permute(0, 2, 4, 1, 3) for t in (q, k, v))  # [N, V, heads, S, head_dim]
            q, k = _rotated(attention.rotary_emb, q, k, self._length)
            own = past.attend(q, k, v).permute(0, 3, 1, 2, 4)
        out: Tensor = attention.wO(own.flatten(-2))
        return out


def _over_time(layer: Any) -> bool:
    return bool(layer.attention_axis.name == "TIME")


def _across(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[..., heads, V, head_dim]: the channels of one chain attend to each other."""
    if q.shape[-2] == 1:
        return v
    return functional.scaled_dot_product_attention(q, k, v)


def _rotated(rotary: Any, q: Tensor, k: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """Queries and keys [..., D] at one position, as the authors' decoding with a cache rotates and
    scales them (their scale depends on the length of what was put in, here one patch)."""
    turn, scale = _turns(rotary, torch.tensor([position], device=q.device))
    return _turned(q, turn[0], scale[0]), _turned(k, turn[0], 1 / scale[0])


def _turns(rotary: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """At positions [T], what pairs of neighbours are turned by, complex [T, D / 2], and what the
    entries of queries are then multiplied by, and those of keys divided by, [T, D]."""
    at = positions.float()
    angle = rotary.forward(at)[:, ::2]
    return torch.polar(torch.ones_like(angle), angle), rotary.get_scale(at)


def _turned(x: Tensor, turns: Tensor, scale: Tensor) -> Tensor:
    """`x` [..., T, D] in a rotary embedding's place."""
    pairs = torch.view_as_complex(x.contiguous().view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * turns).flatten(-2) * scale


def last_states(network: Any, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden vectors [N, V, D] of the last patch of series [N, V, T], and its loc and scale [N, V].

    What `hidden_states` gives there, computed without what nobody reads: from the last layer over
    time on only the last patch, one table of positions for all layers, and no mask where all
    channels are of one group. Toto in size tiny takes half the time.
    """
    scaled, loc, scale = network.scaler(x, weights=torch.ones_like(x), padding_mask=real)
    hidden = network.patch_embed(scaled, masks(x)[1])[0]
    patches = torch.arange(hidden.shape[2], device=x.device)
    turns, stretch = _turns(network.transformer.rotary_emb, patches)
    layers = list(network.transformer.layers)
    over_time = [_over_time(layer) for layer in layers]
    last = max((k for k, is_time in enumerate(over_time) if is_time), default=0)
    for index, layer in enumerate(layers):
        seen = layer.norm1(hidden)
        if index >= last:
            hidden = hidden[:, :, -1:]
        attention = layer.attention
        mixed = attention.wQKV(seen).view(*seen.shape[:3], 3, attention.head_dim, -1)
        if over_time[index]:
            q, k, v = (
                mixed.permute(3, 0, 1, 5, 2, 4).contiguous().flatten(1, 2)
            )  # [N * V, heads, T, D] each
            q, k = _turned(q, turns, stretch), _turned(k, turns, 1 / stretch)
            causal = index < last
            own = functional.scaled_dot_product_attention(
                q if causal else q[:, :, -1:], k, v, is_causal=causal
            )
            own = own.transpose(1, 2).reshape(hidden.shape)
        else:
            q, k, v = mixed.permute(3, 0, 2, 5, 1, 4).flatten(1, 2)  # [N * T, heads, V, D] each
            own = (
                _across(q, k, v).transpose(1, 2).reshape(len(x), -1, *x.shape[1:2], seen.shape[-1])
            )
            own = own.transpose(1, 2)[:, :, -hidden.shape[2] :]
        hidden = hidden + attention.wO(own)
        hidden = hidden + layer.mlp(layer.norm2(hidden))
    return hidden[:, :, -1], loc[..., -1], scale[..., -1]


@dataclass(slots=True)
class Past:
    """Keys and values of one layer: the contexts', shared, and each chain's own."""

    keys: Tensor  # [N, V, heads, T, head_dim]
    values: Tensor
    own_keys: Tensor  # [N, V, heads, S, M, head_dim]
    own_values: Tensor
    used: int = 0

    @classmethod
    def of(cls, kept: tuple[Tensor, Tensor], shape: torch.Size, samples: int, room: int) -> Past:
        """Of the authors' cache of a layer, with room for so many patches of each sample."""
        keys, values = (t.reshape(*shape, *t.shape[1:]) for t in kept)
        size = (*keys.shape[:3], samples, max(room, 1), keys.shape[-1])
        return cls(keys, values, keys.new_empty(size), keys.new_empty(size))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[N, V, heads, S, head_dim] of queries over the past and, once added, their own patch."""
        self.own_keys[..., self.used, :], self.own_values[..., self.used, :] = k, v
        self.used += 1
        q = q * q.shape[-1] ** -0.5
        own_keys, own_values = (
            self.own_keys[..., : self.used, :],
            self.own_values[..., : self.used, :],
        )
        shared = q @ self.keys.transpose(-1, -2)
        own = (q.unsqueeze(-2) * own_keys).sum(-1)
        weights = torch.cat((shared, own), dim=-1).softmax(-1)
        length = shared.shape[-1]
        ahead = weights[..., :length] @ self.values
        return ahead + (weights[..., length:, None] * own_values).sum(-2)


@dataclass(frozen=True, slots=True)
class Moments:
    """Running count, mean and sum of squared deviations of chains, in double precision: what the
    authors' causal patch scaler computes anew from the whole series."""

    scaler: Any
    count: Tensor  # [N, 1, V, 1]
    mean: Tensor  # [N, S, V, 1]
    squares: Tensor  # [N, S, V, 1]
    bounds: tuple[Tensor, Tensor] | None  # of the scale, from the context's own

    @classmethod
    def of(cls, scaler: Any, x: Tensor, real: Tensor) -> Moments:
        """After contexts [N, V, C]."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        values, known = x.to(wide)[:, None], real.to(wide)[:, None]
        count = known.sum(-1, keepdim=True)
        mean = (values * known).sum(-1, keepdim=True) / count.clamp_min(1.0)
        squares = ((values - mean) ** 2 * known).sum(-1, keepdim=True)
        bounds = None
        if scaler.stabilize_with_global:
            whole = torch.sqrt(squares / count.clamp_min(1.0) + scaler.minimum_scale)
            factor = 10.0**scaler.scale_factor_exponent
            bounds = (whole / factor).clamp_min(scaler.minimum_scale), whole * factor
        return cls(scaler, count, mean, squares, bounds)

    def after(self, values: Tensor) -> Moments:
        """After a patch [N, S, V, P] more: two samples' moments joined (Chan et al. 1979)."""
        new = values.to(self.mean.dtype)
        size = new.shape[-1]
        mean = new.mean(-1, keepdim=True)
        squares = ((new - mean) ** 2).sum(-1, keepdim=True)
        total = self.count + size
        away = mean - self.mean
        joined = self.squares + squares + away**2 * (self.count * size / total)
        return Moments(self.scaler, total, self.mean + away * (size / total), joined, self.bounds)

    def loc_and_scale(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """[N, S, V, 1] what the newest patch is scaled by."""
        bessel = 1.0 if self.scaler.use_bessel_correction else 0.0
        variance = self.squares / (self.count - bessel).clamp_min(1.0)
        scale = torch.sqrt(variance + self.scaler.minimum_scale)
        if self.bounds is not None:
            scale = torch.clamp(scale, *self.bounds)
        return self.mean.to(dtype), scale.to(dtype)


def sample_paths(network: Any, x: Tensor, real: Tensor, draws: Tensor) -> Tensor:
    """Sampled futures [N, S, V, T] of contexts [N, V, C].

    C and T are multiples of the patch size; `real` [N, V, C] is False where x is padding; `draws`
    [N, S, V, T, 3] are uniforms.
    """
    patch = network.patch_embed.stride
    parts = [draws[..., k : k + patch, :] for k in range(0, draws.shape[-2], patch)]
    chains = Chains(network, x, real, draws.shape[1], len(parts) - 1)
    found = [chains.newest.sample(parts[0])]
    for part in parts[1:]:
        chains.push(found[-1])
        found.append(chains.newest.sample(part))
    return torch.cat(found, dim=-1)


def mixtures_at(
    network: Any, x: Tensor, real: Tensor, channels: Tensor, steps: Tensor
) -> tuple[Mixture, Tensor, Tensor]:
    """What the network says of chosen bars of the patch after the contexts alone: mixtures [N, L],
    their loc and scale [N, L] in the series' own units. Channel `channels` [L], bar `steps` [L]."""
    hidden, loc, scale = last_states(network, x, real)
    every = fold(network).mixture(hidden.unsqueeze(2))
    return every.at(channels, steps), loc[:, channels], scale[:, channels]


def sample_points(
    network: Any, x: Tensor, real: Tensor, draws: Tensor, channels: Tensor, steps: Tensor
) -> Tensor:
    """[N, S, L] draws of chosen bars of the patch after the contexts alone (`mixtures_at`); `draws`
    [N, S, L, 3]. What `sample_paths` would give there."""
    chosen, loc, scale = mixtures_at(network, x, real, channels, steps)
    own = draw(chosen.unsqueeze(1), draws)
    return without_extremes(own * scale[:, None] + loc[:, None])


def point_quantiles(
    network: Any, x: Tensor, real: Tensor, channels: Tensor, steps: Tensor, levels: Levels
) -> Tensor:
    """[N, L, Q] quantiles of the same bars, float64: those of the mixture, nothing is drawn."""
    chosen, loc, scale = mixtures_at(network, x, real, channels, steps)
    own_loc, own_scale = (t.cpu().double()[..., None] for t in (loc, scale))
    return quantiles(chosen, levels) * own_scale + own_loc


def draw(mixture: Mixture, draws: Tensor) -> Tensor:
    """[N, S, ...] draws of mixtures [N, S or 1, ...], in normalised units, of uniforms [N, S, ...,
    3]: the component by its inverse distribution function, then a Student-t of it."""
    above = mixture.shares.cumsum(-1)
    chosen = (draws[..., 0, None] >= above).sum(-1).clamp(max=above.shape[-1] - 1)

    def of_chosen(values: Tensor) -> Tensor:
        every = values.expand(*chosen.shape, values.shape[-1])
        return every.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)

    standard = student_t(of_chosen(mixture.df), draws[..., 1], draws[..., 2])
    return of_chosen(mixture.loc) + of_chosen(mixture.scale) * standard


def student_t(df: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Student-t draws with `df` degrees of freedom of two uniforms in [0, 1).

    Bailey 1994, "Polar generation of random variates with the t-distribution", Mathematics of
    Computation 62, in its trigonometric form: sqrt(df (U^(-2/df) - 1)) cos(2 pi V).
    """
    radius = df * torch.expm1(-2.0 / df * torch.log1p(-first))
    return radius.clamp_min(0).sqrt() * torch.cos(2 * math.pi * second)


def without_extremes(values: Tensor) -> Tensor:
    """Draws that are no numbers, or beyond what float16 holds, become 0: early in training
    the tails are wild (the authors' forecaster does so at the bounds of the dtype)."""
    wild = ~torch.isfinite(values) | (values.abs() > torch.finfo(torch.float16).max)
    return torch.where(wild, torch.zeros_like(values), values)
