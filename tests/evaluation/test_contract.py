"""The contract suite lets honest models pass and catches each planted breach."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

from foresweep.data.panel import CLOSE
from foresweep.errors import ForecastError, LeakFound
from foresweep.evaluation.contract import Bench, ModelContract, contract_panel, shortened
from foresweep.models.base import Checkpoint, Forecast, as_dict, config_class, hyper
from foresweep.models.baselines.naive import BaselineConfig, LastValue, Walk
from foresweep.models.checkpoint import read_weights, write_checkpoint


@config_class
class HonestConfig(BaselineConfig):
    """A scale that matters and a seed that does."""

    stretch: float = hyper(1.0, "factor of the spread", probe=(1.0, 2.0), gt=0)


@dataclasses.dataclass(frozen=True)
class Stretched:
    """Last-value with its spread stretched, moved by a fitted hair."""

    context_length: int
    stretch: float
    hair: float

    def predict(self, context, *, horizon, levels, seed) -> Forecast:
        made = Walk(self.context_length).predict(context, horizon=horizon, levels=levels, seed=seed)
        last = context.last_close[:, None, None]
        return Forecast(last * (made.values / last) ** self.stretch * self.hair, levels)


class Honest(LastValue):
    """A model that fits one number on train, with a little chance in it."""

    name = "honest"
    Config = HonestConfig

    def fitted(self, train, config, seed) -> float:
        moves = [np.diff(np.log(train.values(i)[:, CLOSE])).mean() for i in range(3)]
        return float(np.exp(np.mean(moves) + 1e-6 * np.random.default_rng(seed).standard_normal()))

    def train(self, job):
        hair = self.fitted(job.windows, job.config, job.seed)
        scored = job.score(self.made(job.config, hair))
        job.report(1, scored.scores, scored.losses)
        return write_checkpoint(
            job.out, model=self.name, config=as_dict(job.config), weights={"hair": np.array([hair])}
        )

    def made(self, config, hair):
        return Stretched(config.context_length, config.stretch, hair)

    def load(self, checkpoint: Checkpoint, resources):
        hair = float(read_weights(checkpoint)["hair"][0])
        return self.made(self.Config(**checkpoint.config), hair)


class TestHonest(ModelContract):
    def make(self):
        return Honest()

    def config(self) -> dict[str, Any]:
        return {"context_length": 32}


class FitsOnAll(Honest):
    """Its number is of the whole series, test included."""

    def fitted(self, train, config, seed):
        return float(np.exp(1e-6 * np.log(train.panel.bars[0].values[:, CLOSE]).mean()))


class FitsOnTune(Honest):
    """Its number is of train and tune."""

    def fitted(self, train, config, seed):
        stop = train.split.part("tune").stop
        return float(np.exp(1e-6 * np.log(train.panel.bars[0].values[:stop, CLOSE]).mean()))


class DeafToStretch(Honest):
    """One hyperparameter does nothing."""

    def made(self, config, hair):
        return Stretched(config.context_length, 1.0, hair)


class Unseeded(Honest):
    """Chance without a seed."""

    def fitted(self, train, config, seed):
        return super().fitted(train, config, np.random.SeedSequence().entropy)


class Forgetful(Honest):
    """What was trained is not what is loaded."""

    def load(self, checkpoint, resources):
        return self.made(self.Config(**checkpoint.config), 1.0 + 1e-2 * np.random.random())


class GoesAstray(Honest):
    """A resumed training ends elsewhere."""

    def train(self, job):
        return super().train(dataclasses.replace(job, seed=job.seed + bool(job.resume)))


@dataclasses.dataclass(frozen=True)
class Altered(Stretched):
    """A predictor with a breach."""

    breach: str

    def predict(self, context, *, horizon, levels, seed):
        made = super().predict(context, horizon=horizon, levels=levels, seed=seed)
        values = made.values
        if self.breach == "neighbours":
            values = values * (1 + 1e-3 * np.log(context.last_close).mean())
        elif self.breach == "order":
            values = values * (1 + 1e-3 * np.arange(len(values)))[:, None, None]
        elif self.breach == "level":
            values = values + 0.5
        elif self.breach == "crossed":
            values = values[..., ::-1]
        elif self.breach == "levels":
            values = np.repeat(values[..., :1], 9, axis=2)
        elif self.breach == "padding":
            values = values * (1 + 1e-3 * context.mask.mean(axis=1))[:, None, None]
        elif self.breach == "blind":
            return super().predict(
                dataclasses.replace(context, values=np.ones_like(context.values)),
                horizon=horizon,
                levels=levels,
                seed=seed,
            )
        return Forecast(values, levels)


def broken(breach: str) -> type[Honest]:
    class Broken(Honest):
        def made(self, config, hair):
            return Altered(config.context_length, config.stretch, hair, breach)

    return Broken


PLANTED = [
    (FitsOnAll, "test_training_is_blind_to_every_bar_after_train"),
    (FitsOnTune, "test_training_is_blind_to_every_bar_after_train"),
    (DeafToStretch, "test_every_hyperparameter_changes_the_outcome_or_is_refused"),
    (Unseeded, "test_the_same_seed_gives_the_same_weights_and_scores"),
    (LastValue, "test_another_seed_gives_another_outcome"),
    (GoesAstray, "test_a_resumed_training_ends_where_an_unbroken_one_does"),
    (Forgetful, "test_a_reloaded_checkpoint_gives_the_same_forecast"),
    (broken("neighbours"), "test_no_forecast_moves_when_only_the_future_is_changed"),
    (broken("neighbours"), "test_batch_size_and_order_change_no_forecast"),
    (broken("order"), "test_batch_size_and_order_change_no_forecast"),
    (broken("level"), "test_rescaled_prices_give_rescaled_forecasts"),
    (broken("levels"), "test_a_forecast_has_the_shape_and_levels_asked_for"),
    (broken("padding"), "test_a_short_context_is_what_a_young_item_has"),
    (broken("blind"), "test_no_forecast_moves_when_only_the_future_is_changed"),
]


@pytest.mark.parametrize(
    ("model", "test"), PLANTED, ids=[f"{k}-{test[5:35]}" for k, (_, test) in enumerate(PLANTED)]
)
def test_a_planted_breach_is_caught(model, test, tmp_path):
    (tmp_path / "trials").mkdir()
    bench = Bench(model(), tmp_path / "trials")
    suite = TestHonest()
    given = {"bench": bench, "tmp_path": tmp_path, "mode": "scratch"}
    given["trained_mode"] = "scratch"
    check = getattr(suite, test)
    wanted = inspect.signature(check).parameters
    if "trial" in wanted:
        given["trial"] = bench.trial(suite.config())
    with pytest.raises((AssertionError, LeakFound, ForecastError)):
        check(**{k: given[k] for k in wanted})


def test_quantiles_that_fall_are_caught(tmp_path):
    bench = Bench(broken("crossed")(), tmp_path)
    trial = bench.trial(TestHonest().config(), steer="falling")
    with pytest.raises(AssertionError):
        TestHonest().test_quantiles_rise_and_hold_prices_of_the_right_size(trial)


def test_a_shortened_context_shows_nothing_of_what_it_hides(tmp_path):
    bench_context = Bench(Honest(), tmp_path).contexts(Walk(32))
    short = shortened(bench_context, 20)
    assert (short.lengths == 20).all()
    assert np.isnan(short.values[:, :12]).all()
    assert np.isnat(short.timestamps[:, :12]).all()
    np.testing.assert_array_equal(short.values[:, 12:], bench_context.values[:, 12:])


def test_the_contract_s_panel_is_lawful_and_the_same_every_time():
    one, two = contract_panel(), contract_panel()
    assert one.hash == two.hash
    for bars in one.bars:
        opened, high, low, close, volume = bars.values.T
        assert (high >= np.maximum(opened, close)).all()
        assert (low <= np.minimum(opened, close)).all()
        assert (volume > 0).all()
        assert (low > 0).all()
