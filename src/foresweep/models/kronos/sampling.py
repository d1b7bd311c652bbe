"""Kronos sampling: every window's context is encoded once and shared by all of its sample paths.

The package's own loop (`auto_regressive_inference` of kronos-finance 0.1.5, MIT) repeats the
context once per path and encodes it anew for every bar. Here keys and values of the context are
computed once per window, each path keeps only those of its own bars, and the heads are read at
the last bar alone. Token for token the result is the package's, for the same draws.

That holds while a bar and all before it fit the model's positions. Beyond, the package drops the
oldest bars, which changes the hidden states of those that stay: from that bar on every path is
encoded anew for every bar here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from foresweep.errors import ForecastError

if TYPE_CHECKING:
    from torch import Tensor

# The predictor's and the tokenizer's blocks as plain tensors, for sampling.
#
# Sampling takes many small steps, and most of their time would go into calling modules. Here a
# block is a handful of matrices: queries, keys and values in one, both halves of the feed-forward
# gate in one, the attention's scale folded into the queries, dropout left out (eval mode). The
# results are the modules' own to rounding.


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x @ weight.T + bias"""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Root mean square norm over the last axis."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A transformer block. Queries come scaled: attend with scale 1. A head's queries and keys come
    with the entries side by side that `_turned` turns together; their products know no order."""

    heads: int
    norm1: Norm
    qkv: Linear
    out: Linear
    norm2: Norm
    gate: Linear  # w1 above w3
    down: Linear

    def feed_forward(self, x: Tensor) -> Tensor:
        """`x` plus its feed-forward update."""
        left, right = self.gate(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(left) * right)


def block_of(block: Any) -> Block:
    """A `TransformerBlock` of the package."""
    a, ffn = block.self_attn, block.ffn
    query, key, value = (linear_of(p) for p in (a.q_proj, a.k_proj, a.v_proj))
    w1, w3 = linear_of(ffn.w1), linear_of(ffn.w3)
    return Block(
        heads=a.n_heads,
        norm1=norm_of(block.norm1),
        qkv=_stacked(_paired(scaled(query, a.head_dim**-0.5), a), _paired(key, a), value),
        out=linear_of(a.out_proj),
        norm2=norm_of(block.norm2),
        gate=_stacked(w1, w3),
        down=linear_of(ffn.w2),
    )


def linear_of(module: Any) -> Linear:
    """The layer's weights, with those of its LoRA adapters added where it has some."""
    base = getattr(module, "base_layer", module)
    weight = base.weight
    for adapter in getattr(module, "active_adapters", ()):
        weight = weight + module.get_delta_weight(adapter)
    return Linear(weight, base.bias)


def norm_of(module: Any) -> Norm:
    return Norm(module.weight, module.eps)


def scaled(linear: Linear, factor: float) -> Linear:
    """The layer whose output is `factor` times this one's."""
    bias = None if linear.bias is None else linear.bias * factor
    return Linear(linear.weight * factor, bias)


def _stacked(*parts: Linear) -> Linear:
    """One layer whose output is those of the parts side by side."""
    biases = [p.bias for p in parts if p.bias is not None]
    weight = torch.cat([p.weight for p in parts])
    return Linear(weight, torch.cat(biases) if biases else None)


def _paired(linear: Linear, attention: Any) -> Linear:
    """The layer whose output [h * d] has in each head entries i and i + d / 2 side by side: the
    package's rotary embedding turns those two together."""
    order = torch.arange(len(linear.weight), device=linear.weight.device)
    order = order.view(attention.n_heads, 2, -1).transpose(1, 2).flatten()
    bias = None if linear.bias is None else linear.bias[order]
    return Linear(linear.weight[order], bias)


def turns_of(attention: Any, start: int, stop: int) -> Tensor:
    """[stop - start, 1, 1, d / 2] complex: what the pairs of a head are turned by at each position,
    as the package's rotary embedding turns them."""
    frequency = attention.rotary.inv_freq
    at = torch.arange(start, stop, device=frequency.device).to(frequency)
    angles = torch.outer(at, frequency)[:, None, None]
    return torch.polar(torch.ones_like(angles), angles)


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Paired `x` [..., d], turned by `turns` [..., d / 2]."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2))
    turned: Tensor = torch.view_as_real(pairs * turns).flatten(-2)
    return turned


# Kronos sampling: every window's context is encoded once and shared by all of its sample paths.


Tokens = tuple["Tensor", "Tensor"]
"""Coarse and fine token ids of equal shape."""
Pair = tuple["Tensor", "Tensor"]
"""Keys and values."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How paths are drawn."""

    num_samples: int  # paths per window, S
    temperature: float = 1.0
    top_p: float = 1.0  # share of probability kept, most likely tokens first
    top_k: int = 0  # most likely tokens kept, 0 for all; top_p is then left alone
    positions: int = 512  # bars of context and own ones that the nets see at once


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
        index = torch.searchsorted(cumulative, at, right=True)
        return index[:, 0].clamp(max=probs.shape[-1] - 1)

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
    ForecastError when the predictor's logits are not finite, or the horizon is longer than
    `how.positions`.
    """
    num_steps = future.shape[1]
    if num_steps > how.positions:
        raise ForecastError(
            f"Kronos holds {how.positions} bars and was asked for {num_steps} ahead; "
            f"ask for at most {how.positions}"
        )
    context: Tokens = tuple(tokenizer.encode(x, half=True))
    paths = _sample_tokens(predictor, context, past, future, how, draw)
    kept = slice(max(0, x.shape[1] + num_steps - how.positions), None)
    return _decode(tokenizer, (context[0][:, kept], context[1][:, kept]), paths)


def _sample_tokens(
    predictor: Any, context: Tokens, past: Tensor, future: Tensor, how: Sampling, draw: Draw
) -> Tokens:
    """Token ids (coarse, fine) of the future bars, each [B, S, H]."""
    size = (len(past), how.num_samples, future.shape[1])
    coarse, fine = (torch.empty(size, dtype=torch.long, device=past.device) for _ in range(2))
    num_fast = min(size[2], how.positions - past.shape[1] + 1)
    chains: _Chains | _Sliding | None = None
    if num_fast > 0:
        chains = _Chains(predictor, context, past, future[:, :num_fast], how.num_samples)
    for step in range(size[2]):
        if chains is None or step == num_fast:
            chains = _Sliding(predictor, context, past, future, how)
        chains.advance((coarse, fine), step)
        logits = chains.coarse_logits()
        if step == 0 and not bool(torch.isfinite(logits).all()):
            raise ForecastError(
                "the Kronos predictor's logits are not finite; its weights are void"
            )
        probs = _probabilities(logits, how)
        if len(probs) < size[0] * size[1]:  # all paths of a window stand where its context ends
            probs = _per_path(probs, how.num_samples)
        coarse[:, :, step] = draw(probs, step, 0).view(size[:2])
        logits = chains.fine_logits(coarse[:, :, step])
        fine[:, :, step] = draw(_probabilities(logits, how), step, 1).view(size[:2])
    return coarse, fine


def _probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """Token probabilities [M, V] after temperature and filtering, as the authors do it."""
    from kronos_finance._vendor.kronos_model.kronos import top_k_top_p_filtering

    if how.temperature != 1:
        logits = logits / how.temperature
    if how.top_k or (how.top_p < 1 and logits.device.type != "cpu"):
        logits = top_k_top_p_filtering(logits, top_k=how.top_k, top_p=how.top_p)
    elif how.top_p < 1:
        kept, tied = _likeliest(logits, how.top_p)
        if bool(tied.any()):
            kept[tied] = top_k_top_p_filtering(logits[tied], top_p=how.top_p)
        logits = kept
    return F.softmax(logits, dim=-1)


def _likeliest(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Logits [M, V] with those beyond the likeliest `top_p` of each row at minus infinity, and the
    rows [M] where the last token kept is as likely as one left out, which keep both.

    What the authors' filter gives, but sorted by numpy: on a CPU torch takes 24 times as long.
    """
    falling = torch.from_numpy(np.sort(logits.numpy(), axis=-1)).flip(-1)
    before = falling.softmax(-1).cumsum(-1)[:, :-1]  # probability of all that are likelier
    num_kept = 1 + (before <= top_p).sum(-1)
    last = falling.gather(-1, num_kept[:, None] - 1)
    kept = logits >= last
    return logits.masked_fill(~kept, float("-inf")), kept.sum(-1) > num_kept


class _Chains:
    """The predictor's state over S paths of B windows: shared context, own bars."""

    def __init__(self, predictor: Any, context: Tokens, past: Tensor, future: Tensor, num: int):
        cross, embedding = predictor.dep_layer.cross_attn, predictor.embedding
        num_context, num_steps = past.shape[1], future.shape[1]
        self.size = (len(past), num)
        self.blocks = [block_of(b) for b in predictor.transformer]
        self.norm, self.cross_norm = norm_of(predictor.norm), norm_of(predictor.dep_layer.norm)
        self.coarse_table, self.fine_table = embedding.emb_s1.weight, embedding.emb_s2.weight
        fusion = linear_of(embedding.fusion_proj)
        self.fusion = Linear(fusion.weight * embedding.d_model**0.5, fusion.bias)
        self.query = scaled(linear_of(cross.q_proj), cross.head_dim**-0.5)
        self.cross_pair = _stacked(linear_of(cross.k_proj), linear_of(cross.v_proj))
        self.cross_out, self.cross_heads = linear_of(cross.out_proj), cross.n_heads
        self.head = predictor.head
        self.stamps = predictor.time_emb(future)
        attention = predictor.transformer[0].self_attn
        turns = turns_of(attention, 0, num_context + num_steps)
        self.turns = turns[num_context:]
        hidden = predictor.embedding(list(context)) + predictor.time_emb(past)
        self.caches = []
        for block in self.blocks:
            hidden, keys, values = _encode_block(block, hidden, turns[:num_context])
            self.caches.append(_Cache(keys, values, num, num_steps))
        hidden = self.norm(hidden)
        keys, values = (_split(x, cross.n_heads) for x in self.cross_pair(hidden).chunk(2, -1))
        self.cross_cache = _Cache(keys, values, num, num_steps)
        self.last = hidden[:, -1:]  # [B, 1, d], all paths alike; later [B, S, d]
        self.step = 0

    def advance(self, tokens: Tokens, step: int) -> None:
        """Take the bar before `step` into every path; the context's last at step 0."""
        if step == 0:
            return
        before, self.step = step - 1, step
        pair = (
            F.embedding(tokens[0][:, :, before], self.coarse_table),
            F.embedding(tokens[1][:, :, before], self.fine_table),
        )
        hidden = self.fusion(torch.cat(pair, -1)) + self.stamps[:, before : before + 1]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            heads = block.qkv(block.norm1(hidden)).view(*self.size, 3, block.heads, -1)
            query, keys = _turned(heads[:, :, :2], self.turns[before]).unbind(2)
            cache.append(before, keys, heads[:, :, 2])
            hidden = hidden + block.out(cache.attend(query, step))
            hidden = block.feed_forward(hidden)
        self.last = self.norm(hidden)
        crossed = self.cross_pair(self.last).view(*self.size, 2, self.cross_heads, -1)
        self.cross_cache.append(before, *crossed.unbind(2))

    def coarse_logits(self) -> Tensor:
        """[B * S, V] logits of the next coarse token; [B, V] before the first bar is drawn, when
        all paths of a window are alike."""
        logits: Tensor = self.head(self.last)
        return logits.flatten(0, 1)

    def fine_logits(self, coarse: Tensor) -> Tensor:
        """[B * S, V] logits of the next fine token, given the coarse one [B, S].

        The package decodes it with a query of one bar, for which its rotary embedding is the
        identity on queries and keys alike (training rotates both): reproduced here.
        """
        query = self.query(F.embedding(coarse, self.coarse_table))
        query = query.view(*self.size, self.cross_heads, -1)
        seen = self.cross_out(self.cross_cache.attend(query, self.step))
        logits: Tensor = self.head.cond_forward(self.cross_norm(self.last + seen))
        return logits.flatten(0, 1)


class _Sliding:
    """The package's own way: the last `positions` bars of every path, encoded anew every bar."""

    def __init__(
        self, predictor: Any, context: Tokens, past: Tensor, future: Tensor, how: Sampling
    ):
        self.predictor, self.positions = predictor, how.positions
        self.context = tuple(_per_path(t, how.num_samples) for t in context)
        self.stamps = _per_path(torch.cat([past, future], dim=1), how.num_samples)
        self.hidden = self.stamps

    def advance(self, tokens: Tokens, step: int) -> None:
        """See _Chains."""
        stop = self.context[0].shape[1] + step
        seen = slice(max(0, stop - self.positions), stop)
        pair = (
            torch.cat([c, t[:, :, :step].flatten(0, 1)], dim=1)[:, seen]
            for c, t in zip(self.context, tokens, strict=True)
        )
        net = self.predictor
        hidden = net.embedding(list(pair)) + net.time_emb(self.stamps[:, seen])
        for block in net.transformer:
            hidden = block(hidden)
        self.hidden = net.norm(hidden)

    def coarse_logits(self) -> Tensor:
        """See _Chains."""
        logits: Tensor = self.predictor.head(self.hidden[:, -1])
        return logits

    def fine_logits(self, coarse: Tensor) -> Tensor:
        """See _Chains."""
        net = self.predictor
        sibling = net.embedding.emb_s1(coarse.reshape(-1, 1))
        logits: Tensor = net.head.cond_forward(net.dep_layer(self.hidden, sibling)[:, -1])
        return logits


def _per_path(x: Tensor, num: int) -> Tensor:
    """[B * S, T, ...] of [B, T, ...]"""
    return x.repeat_interleave(num, dim=0)


class _Cache:
    """Keys and values of one attention layer: the context's [B * h, T, d], shared by the S paths
    of a window, and each path's own [B * h * S, H, d]."""

    def __init__(self, keys: Tensor, values: Tensor, num_samples: int, num_steps: int):
        batch, heads, _, width = keys.shape
        self.keys, self.values = keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)
        self.size = (batch, heads, num_samples, width)
        own = (batch, heads, num_samples, num_steps, width)
        self.own_keys, self.own_values = keys.new_empty(own), keys.new_empty(own)

    def append(self, step: int, keys: Tensor, values: Tensor) -> None:
        """The own bar `step`, of [B, S, h, d]."""
        self.own_keys[..., step, :] = keys.transpose(1, 2)
        self.own_values[..., step, :] = values.transpose(1, 2)

    def attend(self, query: Tensor, num_own: int) -> Tensor:
        """[B, S, h * d] of scaled queries [B, S, h, d], over the context and the first `num_own`
        own bars."""
        batch, heads, num, width = self.size
        query = query.transpose(1, 2).reshape(batch * heads, num, width)
        far = query @ self.keys
        if num_own == 0:
            return self._joined(far.softmax(-1) @ self.values)
        keys, values = (own.flatten(0, 2)[:, :num_own] for own in (self.own_keys, self.own_values))
        near = torch.bmm(keys, query.reshape(-1, width, 1)).view(-1, num, num_own)
        weights = torch.cat((far, near), -1).softmax(-1)
        num_shared = far.shape[-1]
        near = weights[..., num_shared:].reshape(-1, 1, num_own)
        seen = torch.bmm(near, values).view(-1, num, width)
        return self._joined(torch.baddbmm(seen, weights[..., :num_shared], self.values))

    def _joined(self, seen: Tensor) -> Tensor:
        batch, heads, num, width = self.size
        return seen.view(batch, heads, num, width).transpose(1, 2).flatten(-2)


def _attend(query: Tensor, shared: Pair, own: Pair, hidden_from: Tensor) -> Tensor:
    """Attention [B, S, L, h * d] of scaled `query` [B, h, S, L, d] over `shared` [B, h, T, d], one
    for all S paths, and `own` [B, h, S, L, d]; `hidden_from` [L, L] is True where a bar must not
    look."""
    num_shared = shared[0].shape[-2]
    far = query.flatten(2, 3) @ shared[0].mT  # [B, h, S * L, T]
    near = (query @ own[0].mT).masked_fill(hidden_from, float("-inf"))
    weights = torch.cat((far, near.flatten(2, 3)), -1).softmax(-1)
    seen = weights[..., num_shared:].reshape(near.shape) @ own[1]
    seen = seen + (weights[..., :num_shared] @ shared[1]).view(query.shape)
    return seen.permute(0, 2, 3, 1, 4).flatten(-2)


def _split(x: Tensor, heads: int) -> Tensor:
    """[..., L, h * d] -> [..., h, L, d]"""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-2, -3)


def _heads(block: Block, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., L, h, d] of `x` [..., L, h * d], turned by `turns`
    [L, 1, 1, d / 2]."""
    width = x.shape[-1] // block.heads
    mixed = block.qkv(block.norm1(x)).view(*x.shape[:-1], 3, block.heads, width)
    query, keys = _turned(mixed[..., :2, :, :], turns).unbind(-3)
    return query, keys, mixed[..., 2, :, :]


def _encode_block(block: Block, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A causal block over the context [B, T, h * d], with the keys and values [B, h, T, d] it
    used."""
    query, keys, values = (t.transpose(1, 2) for t in _heads(block, x, turns))
    seen = F.scaled_dot_product_attention(query, keys, values, is_causal=True, scale=1.0)
    x = x + block.out(seen.transpose(1, 2).flatten(-2))
    return block.feed_forward(x), keys, values


def _decode(tokenizer: Any, context: Tokens, paths: Tokens) -> Tensor:
    """Bars [B, S, H, D] of the paths, the context decoded once per window."""
    past = tokenizer.post_quant_embed(tokenizer.indices_to_bits(list(context), half=True))
    ahead = tokenizer.post_quant_embed(tokenizer.indices_to_bits(list(paths), half=True))
    num_context, num_steps = past.shape[1], paths[0].shape[2]
    later = torch.ones(num_steps, num_steps, dtype=torch.bool, device=past.device).triu(1)
    for index, module in enumerate(tokenizer.decoder, start=1):
        block = block_of(module)
        turns = turns_of(module.self_attn, 0, num_context + num_steps)
        if index < len(tokenizer.decoder):
            past, keys, values = _encode_block(block, past, turns[:num_context])
        else:  # nobody reads the context's own bars: the paths look at its keys and values
            _, keys, values = (t.transpose(1, 2) for t in _heads(block, past, turns[:num_context]))
        query, *own = (t.movedim(-2, 1) for t in _heads(block, ahead, turns[num_context:]))
        seen = _attend(query, (keys, values), (own[0], own[1]), later)
        ahead = block.feed_forward(ahead + block.out(seen))
    bars: Tensor = tokenizer.head(ahead)
    return bars
