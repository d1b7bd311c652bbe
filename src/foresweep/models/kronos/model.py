"""Kronos: candles as two-part tokens, forecast by sampling paths (arXiv 2508.02739).

Both nets and both losses are the authors' (kronos-finance, MIT); the loop, the normalisation by
the context alone and the sampling are ours. Trained in two stages: the tokenizer (from scratch, or
where `freeze_tokenizer` is off), then the predictor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import AMOUNT, CLOSE, OPEN, VOLUME, IntArray, derived_amount
from foresweep.data.windows import Context, TrainWindows
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Predictor,
    Resources,
    TrainingJob,
    TrainingStage,
    keep_freed_memory,
    make_config,
    uniforms,
    unscored,
)
from foresweep.models.kronos.config import (
    TOKENIZER_HEADS,
    Architecture,
    KronosConfig,
    Nets,
    architecture_of,
    build,
    card_architecture,
    find_pretrained,
    layers_of,
    load_state,
    longer,
    positions_of,
    resolve_pretrained,
    resolve_scratch,
    set_dropout,
    tokenizer_steps,
)
from foresweep.models.representation import LARGEST_MOVE, by_length, sample_quantiles
from foresweep.models.training.config import changed
from foresweep.models.training.optimisation import Drawn, WindowSampler, float32

if TYPE_CHECKING:
    from torch import Tensor

    from foresweep.models.kronos.sampling import Draw


# What Kronos sees of a window: six features, normalised by the context alone, and time stamps.
#
# Features in the authors' order: open, high, low, close, volume, amount (where the data have none,
# volume times the mean of the four prices). Prices enter as z-scored levels, as the authors'
# weights were trained (`price`), or as log ratios to the previous close in percent (`return`); a
# window's first bar, whose previous close is not seen, is measured from its own open.


Target = Literal["return", "price"]
CLIP = 5.0
"""Normalised inputs are cut here, as the authors do."""
EPSILON = 1e-5
"""Added to every standard deviation, as the authors do."""
NUM_FEATURES = 6
DAY_NS = 86_400_000_000_000
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Normal:
    """Normalised windows and the way back."""

    x: Array  # [N, T, 6] clipped at +-CLIP
    mean: Array  # [N, 6] of the context
    scale: Array  # [N, 6] standard deviation of the context, plus EPSILON
    base: Array  # [N] close of the origin
    target: Target

    def closes(self, close: Array) -> Array:
        """Prices [N, S, H] of normalised closes [N, S, H] that follow the origin."""
        value = close * self.scale[:, CLOSE, None, None] + self.mean[:, CLOSE, None, None]
        base = self.base[:, None, None]
        if self.target == "price":
            return base * value / 100
        moves = np.clip(np.cumsum(value, axis=-1), -LARGEST_MOVE, LARGEST_MOVE)
        return base * np.exp(moves / 100)


def normalise(bars: Array, num_context: int, target: Target) -> Normal:
    """Windows `bars` [N, T, F] of open, high, low, close, volume[, amount], whose first
    `num_context` bars are the context: mean and standard deviation are theirs, bars after the
    origin add nothing."""
    base = bars[:, num_context - 1, CLOSE]
    features = _features(bars, base, target)
    context = features[:, :num_context]
    mean, scale = context.mean(axis=1), context.std(axis=1) + EPSILON
    x = (features - mean[:, None]) / scale[:, None]
    return Normal(np.clip(x, -CLIP, CLIP), mean, scale, base, target)


def _features(bars: Array, base: Array, target: Target) -> Array:
    """[N, T, 6], prices in percent: of the previous close (log) or of the origin's close."""
    prices, volume = bars[..., :VOLUME], bars[..., VOLUME]
    told = bars.shape[-1] > AMOUNT
    out = np.empty((*bars.shape[:2], NUM_FEATURES))
    if target == "return":
        before = np.concatenate([bars[:, :1, OPEN], bars[:, :-1, CLOSE]], axis=1)
        out[..., :VOLUME] = 100 * np.log(prices / before[..., None])
    else:
        out[..., :VOLUME] = 100 * prices / base[:, None, None]
    out[..., VOLUME] = volume
    out[..., AMOUNT] = bars[..., AMOUNT] if told else derived_amount(bars)
    return out


def time_stamps(times: NDArray[np.datetime64]) -> IntArray:
    """[..., 5] minute, hour, weekday (Monday is 0), day of month, month of each time."""
    ns = times.astype("datetime64[ns]").astype(np.int64)
    day = ns // DAY_NS
    minute = ns % DAY_NS // MINUTE_NS
    dates = day.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return np.stack(
        [
            minute % 60,
            minute // 60,
            (day + 3) % 7,
            (dates - months.astype("datetime64[D]")).astype(np.int64) + 1,
            months.astype(np.int64) % 12 + 1,
        ],
        axis=-1,
    )


def stamps_ahead(
    past: NDArray[np.datetime64], calendar: NDArray[np.datetime64], horizon: int
) -> IntArray:
    """[N, horizon, 5] time stamps after the contexts' times `past` [N, T].

    The calendar's times `calendar` [N, K] come first; beyond them the week before is repeated, or,
    for bars slower than a week and contexts shorter than one, the usual step.
    """
    pairs = zip(past, calendar[:, :horizon], strict=True)
    total = past.shape[1] + horizon
    times = np.stack([_continued(np.concatenate(pair), total) for pair in pairs])
    return time_stamps(times[:, -horizon:])


def _continued(times: NDArray[np.datetime64], total: int) -> NDArray[np.datetime64]:
    """Rising `times`, gone on with until there are `total`."""
    week = np.timedelta64(7, "D")
    step = np.median(np.diff(times).astype("timedelta64[ns]").astype(np.int64))
    weekly = times[-1] - times[0] >= week and step <= week.astype("timedelta64[ns]").astype(int)
    while len(times) < total:
        same = times[times + week > times[-1]] + week
        more = same if weekly else times[-1:] + np.timedelta64(int(step), "ns")
        times = np.concatenate([times, more])
    return times[:total]


class TrainingBars:
    """Draws training windows of context and labels, and shows them as the nets see them."""

    def __init__(self, train: TrainWindows, config: KronosConfig, num_labels: int) -> None:
        self._train, self._config = train, config
        self.num_context, self.num_labels = config.context_length, num_labels
        self.target: Target = config.target or "return"

    @cached_property
    def _sampler(self) -> WindowSampler:
        return WindowSampler(self._train, self.num_context, self.num_labels, self._config)

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        """`size` windows. Raises NotEnoughData when no item has one."""
        return self._sampler.draw(rng, size)

    def seen(self, bars: Array) -> NDArray[np.float32]:
        """[B, T, 6] of drawn bars."""
        return normalise(bars, self.num_context, self.target).x.astype(np.float32)


# The family, and how it forecasts.


ATTENTION_CELLS = {"cpu": 2**23}
MOST_CELLS = 2**25
"""Largest number of attention weights (or of activations of a layer, where paths slide) held at
once, by device: bounds the windows of one sampling call. On a CPU contexts of 448 bars go a third
faster 14 at a time than 64 at a time, in a processor's caches."""


class Kronos:
    """The Kronos family."""

    name: ClassVar[str] = "kronos"
    Config: ClassVar[type[KronosConfig]] = KronosConfig
    in_update: ClassVar[Mapping[str, Any]] = {
        "freeze_tokenizer": True, "tokenizer_lr": None, "tokenizer_fraction": None,
    }  # fmt: skip
    """Were tokens to mean something else, what the predictor has learnt of them would be lost."""

    def resolve(self, config: KronosConfig, facts: Facts) -> KronosConfig:
        """See ForecastModel. `max_steps` counts both stages; `max_epochs` likewise."""
        if config.pretrained is None:
            return resolve_scratch(config, facts)
        return resolve_pretrained(config, facts, find_pretrained(config.pretrained).architecture)

    def weights_hash(self, config: KronosConfig) -> str:
        """See ForecastModel."""
        return "" if config.pretrained is None else find_pretrained(config.pretrained).hash

    def longer(self, config: KronosConfig, steps: int) -> KronosConfig:
        """The resolved config of the same training, gone on with to `steps`."""
        return longer(config, steps)

    def stages(self, config: KronosConfig) -> tuple[TrainingStage, ...]:
        """The tokenizer's steps, where it has any, and the predictor's."""
        first, every = tokenizer_steps(config), config.max_steps or 1
        tokenizer = TrainingStage(first, "tokenizer", "how well it gives bars back")
        own = TrainingStage(every - first, "predictor", "the next tokens' cross-entropy")
        return (tokenizer, own) if first else (own,)

    def train(self, job: TrainingJob) -> Checkpoint:
        """See ForecastModel. The tokenizer, where it is trained, learns in float32 whatever
        `precision`: a bar's tokens are the signs of what its encoder gives."""
        from foresweep.models.training.loop import finish, fit, seeded
        from foresweep.models.training.optimisation import prepare

        config: KronosConfig = job.config
        bars = TrainingBars(job.windows, config, config.prediction_length or job.horizon)
        with seeded(job.seed, job.resources):
            architecture, nets = _start(config)
            adapted = prepare(nets.predictor, job, layers_of(nets.predictor), nets.blocks())
        live = KronosPredictor(nets.to(job.resources.device), config, job.resources)
        first = tokenizer_steps(config)
        if first:
            lr = config.tokenizer_lr or config.lr
            stage = changed(config, max_steps=first, lr=lr, precision="fp32")
            fit(TokenizerLearner(nets, bars, live), replace(job, config=stage, score=unscored))
        stage = changed(config, max_steps=(config.max_steps or 1) - first)
        learner = PredictorLearner(nets, bars, live)
        fitted = fit(learner, replace(job, config=stage), first_step=first)
        adapted.merged()
        return finish(
            job, self.name, fitted,
            weights=nets.state(), network=architecture, tokenizer_steps=first,
        )  # fmt: skip

    def load(self, checkpoint: Checkpoint, resources: Resources) -> KronosPredictor:
        """See ForecastModel. Raises CheckpointError where the weights do not fit."""
        import torch

        config = make_config(KronosConfig, checkpoint.config, model=self.name)
        with torch.random.fork_rng(devices=[]):  # random weights are drawn before the true ones
            nets = load_state(build(card_architecture(checkpoint)), checkpoint)
        return KronosPredictor(nets.to(resources.device).eval(), config, resources)


def _start(config: KronosConfig) -> tuple[Architecture, Nets]:
    """Nets at random or pretrained, and how they are built."""
    if config.pretrained is None:
        architecture: Architecture = architecture_of(config)
        return architecture, build(architecture)
    pretrained = find_pretrained(config.pretrained)
    nets = pretrained.load()
    set_dropout(nets.predictor, config.dropout or 0.0)
    return pretrained.architecture, nets


class KronosPredictor:
    """Price quantiles of the close, from sampled paths."""

    def __init__(self, nets: Nets, config: KronosConfig, resources: Resources) -> None:
        self.nets, self._config, self._resources = nets, config, resources

    @property
    def context_length(self) -> int:
        return self._config.context_length

    def predict(self, context: Context, *, horizon: int, levels: Levels, seed: int) -> Forecast:
        """See Predictor. Raises ForecastError: a window is too short, or a price is not finite."""
        seen = context.last(self.context_length)
        out = np.empty((len(seen), horizon, len(levels)))
        for index, bars in by_length(seen, int, batch=self._windows_at_once(horizon)):
            closes = self.paths(seen.take(index).last(bars.shape[1]), horizon=horizon, seed=seed)
            out[index] = sample_quantiles(closes, levels)
        return Forecast(out, levels).checked(len(seen), horizon)

    def paths(
        self, context: Context, *, horizon: int, seed: int, draw: Draw | None = None
    ) -> Array:
        """[N, S, H] sampled closes. Every window must have all of its bars. `draw` chooses tokens
        in place of draws that are a function of seed, item and origin."""
        from foresweep.models.kronos.sampling import Sampling, sample_paths

        config = self._config
        how = Sampling(
            config.num_samples,
            config.temperature,
            config.top_p,
            config.top_k or 0,
            positions_of(config),
        )
        normal = normalise(context.values, context.values.shape[1], config.target or "return")
        ahead = stamps_ahead(context.timestamps, context.future_timestamps, horizon)
        with _evaluating(self.nets):
            bars = sample_paths(
                self.nets.tokenizer,
                self.nets.predictor,
                self._tensor(normal.x.astype(np.float32)),
                self._tensor(time_stamps(context.timestamps)),
                self._tensor(ahead),
                how,
                draw or self._own_draws(context, horizon, seed),
            )
        return normal.closes(bars[..., CLOSE].cpu().double().numpy())

    def _own_draws(self, context: Context, horizon: int, seed: int) -> Draw:
        from foresweep.models.kronos.sampling import inverse_cdf

        shape = (2, self._config.num_samples, horizon, 2)
        return inverse_cdf(self._tensor(_stratified(uniforms(context, seed=seed, shape=shape))))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """On the device; MPS knows no float64."""
        import torch

        if values.dtype == np.float64 and self._resources.device.startswith("mps"):
            values = values.astype(np.float32)
        return torch.from_numpy(values).to(self._resources.device)

    def _windows_at_once(self, horizon: int) -> int:
        """Windows of a sampling call: the caller's wish, within ATTENTION_CELLS."""
        config = self._config
        heads = max(config.num_heads or 1, TOKENIZER_HEADS)
        cells = heads * horizon * (config.context_length + horizon)
        if config.context_length + horizon > positions_of(config):
            widest = max(config.ff_dim or 1, config.d_model or 1)
            cells = max(cells, positions_of(config) * widest)
        cells *= config.num_samples
        most = ATTENTION_CELLS.get(self._resources.device, MOST_CELLS)
        return min(self._resources.inference_batch, max(1, most // cells))


def _stratified(uniforms: Array) -> Array:
    """[N, S, H, 2] numbers in [0, 1), of [N, 2, S, H, 2]: at every bar and token half the S paths
    fall one into each of S equal strata, in random order (Latin hypercube sampling, McKay, Beckman
    and Conover 1979). Each path keeps its law; their quantiles are less left to chance."""
    order, inside = uniforms[:, 0], uniforms[:, 1]
    stratum = order.argsort(axis=1).argsort(axis=1)
    drawn: Array = (stratum + inside) / order.shape[1]
    return np.minimum(drawn, np.nextafter(1.0, 0.0))


@contextmanager
def _evaluating(nets: Nets) -> Iterator[None]:
    """Eval mode inside (the authors' KronosPredictor never sees to it); as before after.

    No inference mode: the nets keep rotary tables between calls, which training needs, too.
    """
    import torch

    keep_freed_memory()
    modes = [net.training for net in nets.parts().values()]
    nets.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for net, mode in zip(nets.parts().values(), modes, strict=True):
            net.train(mode)


# Kronos' two trainings, with the authors' losses: first the tokenizer, then the predictor.


MEMORY_BYTES = 2**28
"""Tokens of one training kept in memory: 256 MiB are 130,000 windows of 512 bars."""


class TokenizerLearner:
    """Stage one: reconstruct the bars through the quantizer, from coarse tokens and from both."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.tokenizer
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor]:
        """x [B, T, 6] float32"""
        import torch

        return (torch.from_numpy(self._bars.seen(self._bars.draw(rng, size).bars)),)

    def loss(self, batch: tuple[Tensor]) -> Tensor:
        """(MSE(coarse, x) + MSE(both, x) + quantizer loss) / 2: the authors' finetune scripts."""
        from torch.nn.functional import mse_loss

        (coarse, both), quantizer_loss, _, _ = self.module(batch[0])
        error = mse_loss(coarse, batch[0]) + mse_loss(both, batch[0])
        loss: Tensor = (error + quantizer_loss) / 2
        return loss

    def predictor(self) -> Predictor:
        return self._live


class PredictorLearner:
    """Stage two: the next bar's tokens, by cross-entropy, the tokenizer standing still."""

    def __init__(self, nets: Nets, bars: TrainingBars, live: Predictor) -> None:
        self.module = nets.predictor
        self._tokens = Tokens(nets.tokenizer.requires_grad_(False).eval(), bars)
        self._bars, self._live = bars, live

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, 2] int64, coarse and fine, and time stamps [B, T, 5] int64."""
        import torch

        drawn = self._bars.draw(rng, size)
        stamps = torch.from_numpy(time_stamps(drawn.timestamps))
        return self._tokens.of(drawn), stamps

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean of the coarse and the fine token's cross-entropy (`head.compute_loss`).

        As in the authors' training the fine token is conditioned on a *sampled* coarse one. The
        cross-entropy is taken in float32 whatever the precision of the nets.
        """
        (coarse, fine), stamps = batch[0].unbind(-1), batch[1]
        logits = self.module(coarse[:, :-1], fine[:, :-1], stamps[:, :-1])
        with float32(stamps.device):
            pair = (found.float() for found in logits)
            loss: Tensor = self.module.head.compute_loss(*pair, coarse[:, 1:], fine[:, 1:])[0]
        return loss

    def predictor(self) -> Predictor:
        return self._live


class Tokens:
    """Tokens of training windows, each encoded when it is first drawn and then remembered.

    A window is what was drawn: item, first row, bars merged, mirrored or not; its length and how it
    is normalised are the training's. The memory lives and ends with one training of the predictor,
    during which the tokenizer stands still: no token outlives the tokenizer that made it.
    """

    def __init__(self, tokenizer: Any, bars: TrainingBars, limit: int = MEMORY_BYTES) -> None:
        self._tokenizer, self._bars, self._left = tokenizer, bars, limit
        self._known: dict[tuple[int, int, int, bool], NDArray[np.int16]] = {}

    def of(self, drawn: Drawn) -> Tensor:
        """[B, T, 2] int64, coarse and fine, of the windows drawn."""
        import torch

        keys = list(zip(*(a.tolist() for a in _identity(drawn)), strict=True))
        new = [n for n, key in enumerate(keys) if key not in self._known]
        fresh = dict(zip(new, self._encoded(drawn, new), strict=True))
        for n, tokens in fresh.items():
            if self._left >= tokens.nbytes:
                self._left -= tokens.nbytes
                self._known[keys[n]] = tokens
        windows = [fresh[n] if n in fresh else self._known[key] for n, key in enumerate(keys)]
        return torch.from_numpy(np.stack(windows)).long()

    def _encoded(self, drawn: Drawn, index: list[int]) -> NDArray[np.int16]:
        """[B, T, 2] of the windows at `index`. Ids have 12 bits at most."""
        import torch

        if not index:
            return np.empty((0, 0, 2), np.int16)
        x = torch.from_numpy(self._bars.seen(drawn.bars[index]))
        pair = encode(self._tokenizer, x.to(next(self._tokenizer.parameters()).device))
        tokens: NDArray[np.int16] = torch.stack(pair, dim=-1).to(torch.int16).cpu().numpy()
        return tokens


def _identity(drawn: Drawn) -> tuple[NDArray[Any], ...]:
    """What tells one drawn window from another, [B] each."""
    return drawn.item, drawn.row, drawn.merged, drawn.flipped


def encode(tokenizer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse and fine tokens [B, T] of normalised bars [B, T, 6]."""
    import torch

    with torch.no_grad():
        coarse, fine = tokenizer.encode(x, half=True)
    return coarse, fine
