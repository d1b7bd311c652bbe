"""Kronos: candles as two-part tokens, forecast by sampling paths (arXiv 2508.02739).

Both nets and both losses are the authors' (kronos-finance, MIT); the loop, the normalisation by
the context alone and the sampling are ours. Trained in two stages: the tokenizer (from scratch, or
where `freeze_tokenizer` is off), then the predictor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foresweep.data.panel import CLOSE
from foresweep.data.windows import Context
from foresweep.models.base import (
    Array,
    Checkpoint,
    Facts,
    Forecast,
    Levels,
    Resources,
    TrainingJob,
    uniforms,
    unscored,
)
from foresweep.models.config import make_config
from foresweep.models.kronos.config import (
    TOKENIZER_HEADS,
    KronosConfig,
    architecture_of,
    changed,
    positions_of,
    resolve_pretrained,
    resolve_scratch,
    tokenizer_steps,
)
from foresweep.models.kronos.data import TrainingBars, normalise, stamps_ahead, time_stamps
from foresweep.models.kronos.networks import (
    Architecture,
    Nets,
    build,
    card_architecture,
    find_pretrained,
    layers_of,
    load_state,
    set_dropout,
)
from foresweep.models.representation import by_length, sample_quantiles

if TYPE_CHECKING:
    from torch import Tensor

    from foresweep.models.kronos.sampling import Draw

ATTENTION_CELLS = 2**25
"""Largest number of attention weights (or of activations of a layer, where paths slide) held at
once: bounds the windows of one sampling call."""


class Kronos:
    """The Kronos family."""

    name: ClassVar[str] = "kronos"
    Config: ClassVar[type[KronosConfig]] = KronosConfig

    def resolve(self, config: KronosConfig, facts: Facts) -> KronosConfig:
        """See ForecastModel. `max_steps` counts both stages; `max_epochs` likewise."""
        if config.pretrained is None:
            return resolve_scratch(config, facts)
        return resolve_pretrained(config, facts, find_pretrained(config.pretrained).architecture)

    def weights_hash(self, config: KronosConfig) -> str:
        """See ForecastModel."""
        return "" if config.pretrained is None else find_pretrained(config.pretrained).hash

    def train(self, job: TrainingJob) -> Checkpoint:
        """See ForecastModel. The tokenizer, where it is trained, learns in float32 whatever
        `precision`: a bar's tokens are the signs of what its encoder gives."""
        from foresweep.models.kronos.learners import PredictorLearner, TokenizerLearner
        from foresweep.models.training.loop import finish, fit, seeded
        from foresweep.models.training.optimisation import prepare

        config: KronosConfig = job.config
        bars = TrainingBars(job.windows, config, config.prediction_length or job.horizon)
        with seeded(job.seed, job.resources):
            architecture, nets = _start(config)
            adapted = prepare(nets.predictor, job, layers_of(nets.predictor), nets.blocks())
        live = KronosPredictor(nets.to(job.resources.device), config, job.resources)
        first = 0 if config.finetune == "none" else tokenizer_steps(config)
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
    found = find_pretrained(config.pretrained)
    nets = found.load()
    set_dropout(nets.predictor, config.dropout or 0.0)
    return found.architecture, nets


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
        return min(self._resources.inference_batch, max(1, ATTENTION_CELLS // cells))


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

    modes = [net.training for net in nets.parts().values()]
    nets.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for net, mode in zip(nets.parts().values(), modes, strict=True):
            net.train(mode)
