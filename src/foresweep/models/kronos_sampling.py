"""Kronos sampling: every window's context is encoded once and shared by all of its sample paths.

The package's own loop (`auto_regressive_inference` of kronos-finance 0.1.5, MIT) repeats the
context once per path and encodes it anew for every bar. Here keys and values of the context are
computed once per window, each path keeps only those of its own bars, and the heads are read at
the last bar alone. Token for token the result is the package's, for the same draws.

Exact only while context and horizon together fit the model's positions: the package drops the
oldest bars beyond that, which changes the hidden states of those that stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from foresweep.errors import ForecastError

if TYPE_CHECKING:
    from torch import Tensor

Tokens = tuple["Tensor", "Tensor"]
"""Coarse and fine token ids of equal shape."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How paths are drawn."""

    num_samples: int  # paths per window, S
    temperature: float = 1.0
    top_p: float = 1.0  # share of probability kept, most likely tokens first


class Draw(Protocol):
    """Chooses a token for every path."""

    def __call__(self, probs: Tensor, step: int, half: int) -> Tensor:
        """[B * S] token ids from `probs` [B * S, V], for bar `step` ahead (0-based) and token half
        0 (coarse) or 1 (fine)."""
        ...


def inverse_cdf(uniforms: Tensor) -> Draw:
    """Draws by inverting the cumulative distribution at `uniforms` [B, S, H, 2] in [0, 1).

    A window's draws depend on its own uniforms alone, not on the windows beside it.
    """

    def draw(probs: Tensor, step: int, half: int) -> Tensor:
        cumulative = probs.to(uniforms.dtype).cumsum(-1)
        at = uniforms[:, :, step, half].reshape(-1, 1) * cumulative[:, -1:]
        found = torch.searchsorted(cumulative, at, right=True)
        return found[:, 0].clamp(max=probs.shape[-1] - 1)

    return draw


@torch.no_grad()
def sample_paths(
    tokenizer: Any,
    predictor: Any,
    x: Tensor,
    past: Tensor,
    future: Tensor,
    how: Sampling,
    draw: Draw,
) -> Tensor:
    """All sample paths [B, S, H, D] in the units of `x`.

    `x` [B, T, D]: normalised, clipped context; `past` [B, T, 5] and `future` [B, H, 5]: time
    stamps (minute, hour, weekday, day, month). Both nets must be in eval mode. Raises
    ForecastError when the predictor's logits are not finite.
    """
    context: Tokens = tuple(tokenizer.encode(x, half=True))
    paths = _sample_tokens(predictor, context, past, future, how, draw)
    return _decode(tokenizer, context, paths)


def _sample_tokens(
    predictor: Any, context: Tokens, past: Tensor, future: Tensor, how: Sampling, draw: Draw
) -> Tokens:
    """Token ids (coarse, fine) of the future bars, each [B, S, H]."""
    chains = _Chains(predictor, context, past, future.shape[1], how.num_samples)
    stamps = predictor.time_emb(future)
    size = (len(past), how.num_samples, future.shape[1])
    coarse, fine = (torch.empty(size, dtype=torch.long, device=past.device) for _ in range(2))
    for step in range(size[2]):
        if step:
            before = (coarse[:, :, step - 1], fine[:, :, step - 1])
            chains.append(before, stamps[:, step - 1 : step], step - 1)
        logits = chains.coarse_logits()
        if step == 0 and not bool(torch.isfinite(logits).all()):
            raise ForecastError(
                "the Kronos predictor's logits are not finite; its weights are void"
            )
        chosen = draw(_probabilities(logits, how), step, 0)
        coarse[:, :, step] = chosen.view(size[:2])
        logits = chains.fine_logits(coarse[:, :, step], step)
        fine[:, :, step] = draw(_probabilities(logits, how), step, 1).view(size[:2])
    return coarse, fine


def _probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """Token probabilities [M, V] after temperature and nucleus filtering, as the authors do it."""
    from kronos_finance._vendor.kronos_model.kronos import top_k_top_p_filtering

    logits = logits / how.temperature
    if how.top_p < 1:
        logits = top_k_top_p_filtering(logits, top_k=0, top_p=how.top_p)
    return F.softmax(logits, dim=-1)


class _Chains:
    """The predictor's state over S paths of B windows: shared context, own bars."""

    def __init__(self, predictor: Any, context: Tokens, past: Tensor, num_steps: int, num: int):
        self.predictor = predictor
        self.cross = predictor.dep_layer.cross_attn
        self.num_context, self.size = past.shape[1], (len(past), num)
        blocks = predictor.transformer
        self.rotation = _Rotation(blocks[0].self_attn, self.num_context + num_steps)
        hidden = predictor.embedding(list(context)) + predictor.time_emb(past)
        self.caches = []
        for block in blocks:
            hidden, keys, values = _encode_block(block, hidden, self.rotation)
            self.caches.append(_Cache(keys, values, num, num_steps))
        hidden = predictor.norm(hidden)
        self.cross_cache = _Cache(*self._cross_keys(hidden), num, num_steps)
        self.last = hidden[:, -1:].expand(self.size[0], num, -1).unsqueeze(2)  # [B, S, 1, d]

    def append(self, tokens: Tokens, stamp: Tensor, step: int) -> None:
        """Take the bar drawn for `step` into every path."""
        hidden = (self.predictor.embedding(list(tokens)) + stamp).unsqueeze(2)
        at = slice(self.num_context + step, self.num_context + step + 1)
        for block, cache in zip(self.predictor.transformer, self.caches, strict=True):
            query, keys, values = _heads(block.self_attn, block.norm1(hidden))
            cache.append(step, self.rotation(keys, at), values)
            seen = cache.attend(self.rotation(query, at), step + 1)
            hidden = hidden + block.self_attn.out_proj(seen)
            hidden = hidden + block.ffn(block.norm2(hidden))
        self.last = self.predictor.norm(hidden)
        self.cross_cache.append(step, *self._cross_keys(self.last))

    def coarse_logits(self) -> Tensor:
        """[B * S, V] logits of the next coarse token."""
        logits: Tensor = self.predictor.head(self.last)
        return logits.flatten(0, 2)

    def fine_logits(self, coarse: Tensor, step: int) -> Tensor:
        """[B * S, V] logits of the next fine token, given the coarse one [B, S].

        The package decodes it with a query of one bar, for which its rotary embedding is the
        identity on queries and keys alike (training rotates both): reproduced here.
        """
        sibling = self.predictor.embedding.emb_s1(coarse).unsqueeze(2)
        query = _split(self.cross.q_proj(sibling), self.cross)
        seen = self.cross.out_proj(self.cross_cache.attend(query, step))
        hidden = self.predictor.dep_layer.norm(self.last + seen)
        logits: Tensor = self.predictor.head.cond_forward(hidden)
        return logits.flatten(0, 2)

    def _cross_keys(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        cross = self.cross
        return _split(cross.k_proj(hidden), cross), _split(cross.v_proj(hidden), cross)


class _Rotation:
    """Rotary embedding of `length` positions, computed once for all layers."""

    def __init__(self, attention: Any, length: int):
        frequency = attention.rotary.inv_freq
        angles = torch.outer(torch.arange(length, device=frequency.device).to(frequency), frequency)
        angles = torch.cat((angles, angles), -1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor, at: slice) -> Tensor:
        """`x` [..., L, d] rotated to the positions `at`."""
        left, right = x.chunk(2, dim=-1)
        turned = torch.cat((-right, left), dim=-1)
        return x * self.cos[at] + turned * self.sin[at]


class _Cache:
    """Keys and values of one attention layer: [B, h, T, d] of the context, [B, S, h, H, d] own."""

    def __init__(self, keys: Tensor, values: Tensor, num_samples: int, num_steps: int):
        batch, heads, _, width = keys.shape
        self.keys, self.values = keys, values
        size = (batch, num_samples, heads, num_steps, width)
        self.own_keys, self.own_values = keys.new_empty(size), keys.new_empty(size)

    def append(self, step: int, keys: Tensor, values: Tensor) -> None:
        self.own_keys[..., step : step + 1, :] = keys
        self.own_values[..., step : step + 1, :] = values

    def attend(self, query: Tensor, num_own: int) -> Tensor:
        """[B, S, 1, h * d] over the context and the first `num_own` own bars."""
        own = self.own_keys[..., :num_own, :], self.own_values[..., :num_own, :]
        return _attend(query, (self.keys, self.values), own)


def _attend(
    query: Tensor,
    shared: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    hidden_from: Tensor | None = None,
) -> Tensor:
    """Attention [B, S, L, h * d] of `query` [B, S, h, L, d] over `shared` [B, h, T, d], one for all
    S paths, and `own` [B, S, h, M, d]; `hidden_from` [L, M] is True where a bar must not look."""
    batch, num, heads, length, width = query.shape
    query = query * width**-0.5
    folded = query.transpose(1, 2).reshape(batch, heads, num * length, width)
    far = (folded @ shared[0].transpose(-1, -2)).view(batch, heads, num, length, -1).transpose(1, 2)
    near = query @ own[0].transpose(-1, -2)
    if hidden_from is not None:
        near = near.masked_fill(hidden_from, float("-inf"))
    weights = torch.cat((far, near), -1).softmax(-1)
    num_shared = shared[0].shape[-2]
    far, near = weights[..., :num_shared], weights[..., num_shared:]
    folded = far.transpose(1, 2).reshape(batch, heads, num * length, -1) @ shared[1]
    seen = folded.view(batch, heads, num, length, width).transpose(1, 2) + near @ own[1]
    return seen.transpose(2, 3).flatten(-2)


def _split(x: Tensor, attention: Any) -> Tensor:
    """[..., L, h * d] -> [..., h, L, d]"""
    size = (*x.shape[:-1], attention.n_heads, attention.head_dim)
    return x.reshape(size).transpose(-2, -3)


def _heads(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, not rotated yet."""
    query, keys, values = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    return _split(query, attention), _split(keys, attention), _split(values, attention)


def _encode_block(block: Any, x: Tensor, rotation: _Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """A causal block over the context [B, T, h * d], with the keys and values it used."""
    attention, at = block.self_attn, slice(0, x.shape[1])
    query, keys, values = _heads(attention, block.norm1(x))
    query, keys = rotation(query, at), rotation(keys, at)
    seen = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
    x = x + attention.out_proj(seen.transpose(1, 2).flatten(-2))
    return x + block.ffn(block.norm2(x)), keys, values


def _decode(tokenizer: Any, context: Tokens, paths: Tokens) -> Tensor:
    """Bars [B, S, H, D] of the paths, the context decoded once per window."""
    size = paths[0].shape
    past = tokenizer.post_quant_embed(tokenizer.indices_to_bits(list(context), half=True))
    ahead = tokenizer.post_quant_embed(tokenizer.indices_to_bits(list(paths), half=True))
    num_context, num_steps = past.shape[1], size[2]
    at = slice(num_context, num_context + num_steps)
    later = torch.ones(num_steps, num_steps, dtype=torch.bool, device=past.device).triu(1)
    for block in tokenizer.decoder:
        rotation = _Rotation(block.self_attn, num_context + num_steps)
        past, keys, values = _encode_block(block, past, rotation)
        query, own_keys, own_values = _heads(block.self_attn, block.norm1(ahead))
        own = rotation(own_keys, at), own_values
        seen = _attend(rotation(query, at), (keys, values), own, later)
        ahead = ahead + block.self_attn.out_proj(seen)
        ahead = ahead + block.ffn(block.norm2(ahead))
    bars: Tensor = tokenizer.head(ahead)
    return bars
