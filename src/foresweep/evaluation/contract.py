"""The contract every model keeps, as a pytest suite that a model's own tests inherit.

    class TestMyModel(ModelContract):
        modes = ("scratch", "full", "lora", "zero-shot")
        def make(self): return MyModel()
        def config(self): return {"context_length": 32, "max_steps": 4}
        def tuned_config(self, folder): ...     # writes tiny weights, for every mode but scratch

Give a config that trains in about a second. Everything runs on a tiny made-up panel, on CPU.
Needs pytest; nothing but tests imports this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresweep.data.panel import Panel
from foresweep.data.windows import Windows
from foresweep.errors import ConfigError, UnknownName
from foresweep.evaluation.contract_bench import (
    HORIZON,
    MAX_CONTEXT,
    Bench,
    Mode,
    Steer,
    Trial,
    ask,
    contract_panel,
    contract_split,
    forecast_in_new_process,
    shortened,
)
from foresweep.evaluation.leaks import check_no_leak, check_training_is_blind
from foresweep.models.base import (
    DEFAULT_LEVELS,
    ForecastModel,
    Predictor,
    Resources,
    Scored,
    Scorer,
)
from foresweep.models.calibration import load_predictor
from foresweep.models.checkpoint import read_checkpoint, read_weights
from foresweep.models.config import Hyperparameter, hyperparameters, make_config

__all__ = [
    "HORIZON",
    "MAX_CONTEXT",
    "Bench",
    "Mode",
    "ModelContract",
    "Trial",
    "ask",
    "contract_panel",
    "contract_split",
    "shortened",
]


class ModelContract:
    """Inherit, say what to test, and every promise of the models' door is checked."""

    modes: tuple[Mode, ...] = ("scratch",)
    """What the family supports; every mode but scratch starts from `tuned_config`."""
    random = True
    """Whether another seed gives another outcome."""
    tolerance = 1e-5
    """Relative difference allowed between batch sizes, and after rescaling prices: rounding."""
    unprobed: tuple[str, ...] = ("pretrained",)
    """Hyperparameters that the model's own tests show to matter, because two files are needed."""

    def make(self) -> ForecastModel:
        """A new model."""
        raise NotImplementedError

    def config(self) -> Mapping[str, Any]:
        """Values of a config that trains in about a second."""
        raise NotImplementedError

    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Hyperparameter -> what `config()` needs changed for its probe to bite; mostly nothing."""
        return {}

    def tuned_config(self, folder: Path) -> Mapping[str, Any]:
        """Values of a config that starts from tiny weights, which this writes into `folder`.

        Needed for every mode but scratch, and by models with probes that set `pretrained`; its
        value there does not matter.
        """
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Tests that ask for a mode run in each of the model's."""
        chosen = {
            "mode": self.modes,
            "trained_mode": [m for m in self.modes if m != "zero-shot"],
            "tuned_mode": [m for m in self.modes if m in ("full", "lora")],
            "untrained_mode": [m for m in self.modes if m == "zero-shot"],
        }
        for name in chosen:
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, chosen[name])

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        """One bench a class, so that each trial is trained once."""
        return Bench(cls().make(), tmp_path_factory.mktemp("contract"))

    @pytest.fixture
    def trial(self, bench: Bench, mode: Mode) -> Trial:
        return bench.trial(bench.of_mode(self, mode))

    def test_a_forecast_has_the_shape_and_levels_asked_for(self, trial: Trial) -> None:
        for levels in (DEFAULT_LEVELS, (0.05, 0.5, 0.95)):
            forecast = ask(trial.predictor, trial.context, levels)
            assert forecast.levels == levels
            forecast.checked(len(trial.context), HORIZON)

    def test_quantiles_rise_and_hold_prices_of_the_right_size(self, trial: Trial) -> None:
        assert (np.diff(trial.forecast, axis=2) >= 0).all()
        ratio = trial.forecast / trial.context.last_close[:, None, None]
        assert ((ratio > 0.2) & (ratio < 5)).all()

    def test_the_same_context_gives_the_same_forecast(self, trial: Trial) -> None:
        np.testing.assert_array_equal(ask(trial.predictor, trial.context).values, trial.forecast)

    def test_batch_size_and_order_change_no_forecast(self, trial: Trial) -> None:
        reverse = np.arange(len(trial.context))[::-1]
        turned = ask(trial.predictor, trial.context.take(reverse)).values[reverse]
        alone = [
            ask(trial.predictor, trial.context.take(np.array([n]))).values
            for n in range(len(trial.context))
        ]
        np.testing.assert_allclose(turned, trial.forecast, rtol=self.tolerance)
        np.testing.assert_allclose(np.concatenate(alone), trial.forecast, rtol=self.tolerance)

    def test_a_short_context_is_what_a_young_item_has(self, trial: Trial) -> None:
        rows = trial.context.values.shape[1] * 5 // 8
        short = shortened(trial.context, rows)
        masked = ask(trial.predictor, short).checked(len(short), HORIZON).values
        cut = ask(trial.predictor, trial.context.last(rows)).values
        np.testing.assert_allclose(masked, cut, rtol=self.tolerance)
        assert (np.diff(masked, axis=2) >= 0).all()

    def test_rescaled_prices_give_rescaled_forecasts(self, trial: Trial) -> None:
        factor = np.array([8.0, 8.0, 8.0, 8.0, 1.0])  # a power of two: prices keep every digit
        scaled = dataclasses.replace(trial.context, values=trial.context.values * factor)
        forecast = ask(trial.predictor, scaled).values / 8.0
        np.testing.assert_allclose(forecast, trial.forecast, rtol=self.tolerance)

    def test_no_forecast_moves_when_only_the_future_is_changed(
        self, bench: Bench, trial: Trial
    ) -> None:
        found = check_no_leak(trial.predictor, bench.panel, bench.split)
        assert found.num_forecasts >= 50
        assert found.moved_by_last_bar > 0.5, "forecasts do not see the last bar of their context"

    def test_training_is_blind_to_every_bar_after_train(self, bench: Bench) -> None:
        def train(panel: Panel, scorer: Scorer) -> dict[str, Any]:
            checkpoint, _ = bench.fit(panel, scorer, self.config())
            windows = Windows(bench.panel, bench.split, bench.split.part("val"))
            predictor = bench.model.load(read_checkpoint(checkpoint.path), Resources())
            context = windows.context(predictor.context_length, np.arange(3))
            # catches what is kept beside the weights; raw, since calibration is tune's to teach
            forecast = ask(predictor, context).values
            return {**read_weights(checkpoint), "forecast": forecast}

        check_training_is_blind(train, bench.panel, bench.split)

    def test_the_same_seed_gives_the_same_weights_and_scores(
        self, bench: Bench, mode: Mode
    ) -> None:
        values = bench.of_mode(self, mode)
        first, second = bench.trial(values), bench.fresh(values)
        np.testing.assert_equal(second.weights(), first.weights())
        np.testing.assert_array_equal(second.forecast, first.forecast)
        assert first.told, "training reported no tune score"
        np.testing.assert_equal(second.told, first.told)

    def test_another_seed_gives_another_outcome(self, bench: Bench) -> None:
        first, second = bench.trial(self.config()), bench.trial(self.config(), seed=1)
        differs = not np.array_equal(first.forecast, second.forecast)
        assert differs == self.random

    def test_a_reloaded_checkpoint_gives_the_same_forecast(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        trial = bench.trial(self.config())
        again = load_predictor(bench.model, read_checkpoint(trial.checkpoint.path), Resources())
        np.testing.assert_allclose(ask(again, trial.context).values, trial.forecast, rtol=1e-6)
        elsewhere = forecast_in_new_process(bench.model, trial.checkpoint.path, tmp_path / "f.npy")
        np.testing.assert_allclose(elsewhere, trial.forecast, rtol=1e-6)

    def test_a_resumed_training_ends_where_an_unbroken_one_does(
        self, bench: Bench, trained_mode: Mode
    ) -> None:
        values = bench.of_mode(self, trained_mode)
        unbroken, out = bench.trial(values), bench.new_folder()
        before = len(unbroken.told) // 2  # scorings that the interrupted training lives to see
        with pytest.raises(Killed):
            bench.fit(bench.panel, dying(bench.scorer(), before), values, out=out)
        rest = bench.result(*bench.fit(bench.panel, bench.scorer(), values, resume=out))
        np.testing.assert_equal(rest.weights(), unbroken.weights())
        np.testing.assert_array_equal(rest.forecast, unbroken.forecast)
        np.testing.assert_equal(rest.told, unbroken.told[before:])

    def test_zero_shot_takes_no_step(self, bench: Bench, untrained_mode: Mode) -> None:
        values = bench.of_mode(self, untrained_mode)
        first, second = bench.trial(values), bench.trial(values, seed=1)
        np.testing.assert_equal(second.weights(), first.weights())
        assert len(first.told) == 1, "weights that are not trained are scored once"

    def test_zero_shot_refuses_every_hyperparameter_of_training(
        self, bench: Bench, untrained_mode: Mode
    ) -> None:
        values = bench.of_mode(self, untrained_mode)
        for field in hyperparameters(bench.model.Config):
            other = {field.probe.first, field.probe.second} - {field.default}
            if field.stage == "training" and other:
                with pytest.raises(ConfigError, match=f"{field.name}="):
                    bench.resolve({**values, field.name: min(other)})

    def test_training_over_weights_moves_them(self, bench: Bench, tuned_mode: Mode) -> None:
        before = bench.trial(bench.of_mode(self, "zero-shot"), steer="falling")
        after = bench.trial(bench.of_mode(self, tuned_mode), steer="falling")
        assert not np.array_equal(before.forecast, after.forecast)
        assert before.weights().keys() == after.weights().keys()

    def test_every_hyperparameter_changes_the_outcome_or_is_refused(self, bench: Bench) -> None:
        fields = [h for h in hyperparameters(bench.model.Config) if h.name not in self.unprobed]
        dead = [h.name for h in fields if not self._bites(bench, h)]
        assert not dead, f"hyperparameters without effect: {', '.join(dead)}"

    def test_every_hyperparameter_of_training_matters_over_weights_too(
        self, bench: Bench, tuned_mode: Mode
    ) -> None:
        base = bench.of_mode(self, tuned_mode)
        finetune = base.get("finetune", "full")
        dead = [
            h.name
            for h in hyperparameters(bench.model.Config)
            if h.stage == "training"
            and h.name not in self.unprobed
            and h.probe.setting.get("finetune", finetune) == finetune
            and not self._bites(bench, h, base)
        ]
        assert not dead, f"without effect in mode {tuned_mode}: {', '.join(dead)}"

    def _bites(
        self, bench: Bench, field: Hyperparameter, base: Mapping[str, Any] | None = None
    ) -> bool:
        """Do the two values of a field's probe lead to two forecasts, or one to a refusal?

        In a mode, whose values are the `base`, both may be refused, and weights that differ are
        enough: adapters after a few steps may be too small to turn a sampled token."""
        setting, in_mode = dict(field.probe.setting), base is not None
        if setting.pop("pretrained", None) is not None:
            base = base or bench.tuned(self)
        base = {**(base or self.config()), **setting, **self.settings().get(field.name, {})}
        steer: Steer = "wavering" if field.name == "patience" else "falling"
        found, refused = [], []
        for value in (field.probe.first, field.probe.second):
            try:
                found.append(bench.trial({**base, field.name: value}, steer=steer))
            except ConfigError as error:
                refused.append(str(error))
        if in_mode and not found:
            return True
        assert found, f"both values of {field.name} are refused, which shows nothing: {refused}"
        return len(found) == 1 or _differ(*found, weights=in_mode)

    def test_an_unknown_hyperparameter_is_refused_with_the_nearest_name(self, bench: Bench) -> None:
        for field in hyperparameters(bench.model.Config):
            with pytest.raises(UnknownName, match=f"did you mean '{field.name}'"):
                make_config(bench.model.Config, {f"{field.name}x": 1}, model=bench.model.name)

    def test_a_context_beyond_the_sweep_s_is_refused(self, bench: Bench) -> None:
        with pytest.raises(ConfigError, match=str(bench.split.max_context)):
            bench.resolve({**self.config(), "context_length": bench.split.max_context + 1})


class Killed(Exception):
    """What ends a training from outside."""


def dying(scorer: Scorer, scorings: int) -> Scorer:
    """The scorer, which kills the training after so many scorings."""
    left = iter(range(scorings))

    def score(predictor: Predictor) -> Scored:
        if next(left, None) is None:
            raise Killed
        return scorer(predictor)

    return score


def _differ(first: Trial, second: Trial, *, weights: bool) -> bool:
    """Are the forecasts of two trials different, or, where they count, the weights?"""
    one, two = first.weights(), second.weights()
    moved = any(not np.array_equal(one[k], two[k]) for k in one)
    return (weights and moved) or not np.array_equal(first.forecast, second.forecast)
