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
import importlib
import json
import multiprocessing
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from foresweep.data.panel import Bars, Panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import Context, TrainWindows, Windows
from foresweep.errors import ConfigError, UnknownName
from foresweep.evaluation.backtest import calibrate, make_scorer
from foresweep.evaluation.leaks import check_no_leak, check_training_is_blind, falling_scorer
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Array,
    Checkpoint,
    Facts,
    Forecast,
    ForecastModel,
    Hyperparameter,
    Levels,
    Predictor,
    Resources,
    Scored,
    Scorer,
    TrainingJob,
    as_dict,
    hyperparameters,
    make_config,
)
from foresweep.models.calibration import load_predictor, store_calibration, wants_calibration
from foresweep.models.checkpoint import read_checkpoint, read_weights

# What the contract suite works with: a made-up panel, and a bench that trains short trials on it.


HORIZON = 3
MAX_CONTEXT = 256


def contract_panel(num_bars: int = 600, seed: int = 7) -> Panel:
    """Three walks at price levels 8, 90 and 1,400; the last begins 250 bars late."""
    rng = np.random.default_rng(seed)
    first = np.datetime64("2015-01-05", "D")
    timeline = np.busday_offset(first, np.arange(num_bars)).astype("datetime64[ns]")
    starts, levels = (0, 0, 250), (8.0, 90.0, 1400.0)
    bars = tuple(_walk(rng, s, num_bars, x) for s, x in zip(starts, levels, strict=True))
    calendar = np.arange(num_bars)
    return Panel(("LOW", "MID", "LATE"), timeline, (calendar,), (0, 0, 0), bars, "contract")


def _walk(rng: np.random.Generator, start: int, stop: int, level: float) -> Bars:
    n = stop - start
    sigma = 0.012 * np.exp(0.5 * np.sin(np.arange(n) / 20))
    close = level * np.exp(np.cumsum(sigma * rng.standard_t(5, n)))
    before = np.concatenate([[level], close[:-1]])
    opened = before * np.exp(0.3 * sigma * rng.standard_normal(n))
    high = np.maximum(opened, close) * np.exp(0.3 * sigma * np.abs(rng.standard_normal(n)))
    low = np.minimum(opened, close) * np.exp(-0.3 * sigma * np.abs(rng.standard_normal(n)))
    volume = np.round(1e5 * np.exp(0.4 * rng.standard_normal(n)))
    values = np.stack([opened, high, low, close, volume], axis=1)
    values.setflags(write=False)
    return Bars(values, np.arange(start, stop), 0)


def contract_split(panel: Panel) -> Split:
    """About ten origins a part."""
    return make_split(panel, Cut(HORIZON, stride=2 * HORIZON, max_context=MAX_CONTEXT))


def shortened(context: Context, rows: int) -> Context:
    """The context as it would be for items with only `rows` bars: masked on the left."""
    mask = context.mask.copy()
    mask[:, :-rows] = False
    return dataclasses.replace(
        context,
        mask=mask,
        values=np.where(mask[:, :, None], context.values, np.nan),
        timestamps=np.where(mask, context.timestamps, np.datetime64("NaT", "ns")),
    )


Mode = Literal["scratch", "full", "lora", "zero-shot"]
"""How a model comes to its weights: `config()` as it is (from scratch), or `tuned_config()`, whose
weights are all trained, carry LoRA adapters, or stay as they are."""
Steer = Literal["tune", "falling", "wavering"]
"""What decides which step is kept: scores on tune, or made-up ones. Falling: the last step is the
best; wavering: the same, but the second scoring is worse than the first."""


class Suite(Protocol):
    """What the bench asks of a contract suite."""

    def config(self) -> Mapping[str, Any]: ...

    def tuned_config(self, folder: Path) -> Mapping[str, Any]: ...


def wavering_scorer() -> Scorer:
    """Falling scores, but for the second: what makes patience lose."""
    calls = iter(range(1, 1_000_000))

    def score(predictor: Predictor) -> Scored:
        call = next(calls)
        value = 2.0 if call == 2 else 1.0 / call
        return Scored({"tune_pct_mae": value, "tune_pinball": value}, {})

    return score


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """One short training."""

    checkpoint: Checkpoint
    predictor: Predictor
    context: Context  # of some tune windows
    forecast: Array  # [N, H, Q] of them
    told: tuple[Mapping[str, float], ...]  # every score that training reported

    def weights(self) -> dict[str, Any]:
        return read_weights(self.checkpoint)


class Bench:
    """Trains short trials of one model in one folder, each only once."""

    def __init__(self, model: ForecastModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.panel = contract_panel()
        self.split = contract_split(self.panel)
        self._trials: dict[str, ShortTraining] = {}
        self._tuned: Mapping[str, Any] | None = None

    def facts(self) -> Facts:
        rows = sum(len(self.train_windows(self.panel).values(i)) for i in range(3))
        return Facts(horizon=HORIZON, max_context=self.split.max_context, train_bars=rows)

    def train_windows(self, panel: Panel) -> TrainWindows:
        return TrainWindows(panel, self.split, self.split.part("train"))

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """The resolved config. Raises ConfigError, UnknownName."""
        config = make_config(self.model.Config, values, model=self.model.name)
        return self.model.resolve(config, self.facts())

    def fit(
        self,
        panel: Panel,
        scorer: Scorer,
        values: Mapping[str, Any],
        seed: int = 0,
        *,
        out: Path | None = None,
        resume: Path | None = None,
    ) -> tuple[Checkpoint, list[Mapping[str, float]]]:
        """A fresh training, or one gone on with, and what it reported at its evaluations."""
        told: list[Mapping[str, float]] = []

        def report(
            step: int, scores: Mapping[str, float], losses: Mapping[str, Array] | None = None
        ) -> None:
            if losses is not None:
                told.append({k: v for k, v in scores.items() if k.startswith("tune_")})

        job = TrainingJob(
            self.train_windows(panel),
            self.resolve(values),
            seed=seed,
            horizon=HORIZON,
            score=scorer,
            report=report,
            out=out or self.new_folder(),
            resume=resume,
        )
        checkpoint = self.model.train(job)
        return self.calibrated(checkpoint, panel, values), told

    def new_folder(self) -> Path:
        """A place for one more checkpoint."""
        return self.folder / f"trial-{len(list(self.folder.iterdir()))}"

    def calibrated(
        self, checkpoint: Checkpoint, panel: Panel, values: Mapping[str, Any]
    ) -> Checkpoint:
        """The checkpoint with the calibration that the config asks for, as every trial has it."""
        config = self.resolve(values)
        if not wants_calibration(config):
            return checkpoint
        raw = self.model.load(checkpoint, Resources())
        return store_calibration(checkpoint, calibrate(raw, config, panel, self.split).calibration)

    def trial(
        self, values: Mapping[str, Any], *, seed: int = 0, steer: Steer = "tune"
    ) -> ShortTraining:
        """The trial of these values, steered by tune or by made-up scores."""
        config = make_config(self.model.Config, values, model=self.model.name)
        key = json.dumps([as_dict(config), seed, steer], sort_keys=True)
        if key not in self._trials:
            self._trials[key] = self.fresh(values, seed=seed, steer=steer)
        return self._trials[key]

    def fresh(
        self, values: Mapping[str, Any], *, seed: int = 0, steer: Steer = "tune"
    ) -> ShortTraining:
        """The same, never from memory."""
        made_up = {"falling": falling_scorer, "wavering": wavering_scorer}
        scorer = self.scorer() if steer == "tune" else made_up[steer]()
        return self.result(*self.fit(self.panel, scorer, values, seed))

    def scorer(self) -> Scorer:
        """The scorer on tune that a sweep would give."""
        return make_scorer(self.panel, self.split)

    def result(self, checkpoint: Checkpoint, told: list[Mapping[str, float]]) -> ShortTraining:
        """What a training left behind, asked for some forecasts."""
        predictor = load_predictor(self.model, read_checkpoint(checkpoint.path), Resources())
        context = self.contexts(predictor)
        forecast = ask(predictor, context).values
        return ShortTraining(checkpoint, predictor, context, forecast, tuple(told))

    def of_mode(self, suite: Suite, mode: Mode) -> Mapping[str, Any]:
        """The suite's config in a mode."""
        if mode == "scratch":
            return suite.config()
        tuned = self.tuned(suite)
        if mode == "full":
            return tuned
        if mode == "lora":
            return {**tuned, "finetune": "lora"}
        stages = {h.name: h.stage for h in hyperparameters(self.model.Config)}
        kept = {k: v for k, v in tuned.items() if stages[k] != "training"}
        return {**kept, "finetune": "none"}

    def tuned(self, suite: Suite) -> Mapping[str, Any]:
        """The suite's config that starts from weights, written once."""
        if self._tuned is None:
            folder = self.folder / "pretrained"
            folder.mkdir()
            self._tuned = suite.tuned_config(folder)
        return self._tuned

    def contexts(self, predictor: Predictor) -> Context:
        """Nine windows of tune: three origins of three items."""
        windows = Windows(self.panel, self.split, self.split.part("tune"))
        length = min(predictor.context_length, self.split.max_context)
        return windows.context(length, np.arange(9))


def ask(predictor: Predictor, context: Context, levels: Levels = DEFAULT_LEVELS) -> Forecast:
    """A forecast over the contract's horizon with seed 0."""
    return predictor.predict(context, horizon=HORIZON, levels=levels, seed=0)


def forecast_in_new_process(model: ForecastModel, checkpoint: Path, out: Path) -> Array:
    """The contract's forecast of a checkpoint, from a process that knows nothing else: it comes of
    a server that has imported modules at most."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    kind = type(model)
    asked = (kind.__module__, kind.__qualname__, str(checkpoint), str(out))
    process = context.Process(target=main, args=asked)
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == 0, "the new process failed; its traceback stands in the output"
    loaded: Array = np.load(out)
    return loaded


def main(module: str, name: str, checkpoint: str, out: str) -> None:
    """What `forecast_in_new_process` runs."""
    sys.path.append("")  # a family that stands beside its tests is found from where they are run
    model: ForecastModel = getattr(importlib.import_module(module), name)()
    bench = Bench(model, Path(checkpoint).parent)
    predictor = load_predictor(model, read_checkpoint(Path(checkpoint)), Resources())
    np.save(out, ask(predictor, bench.contexts(predictor)).values)


# The suite.


__all__ = [
    "HORIZON",
    "MAX_CONTEXT",
    "Bench",
    "Mode",
    "ModelContract",
    "ShortTraining",
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
    def trial(self, bench: Bench, mode: Mode) -> ShortTraining:
        return bench.trial(bench.of_mode(self, mode))

    def test_a_forecast_has_the_shape_and_levels_asked_for(self, trial: ShortTraining) -> None:
        for levels in (DEFAULT_LEVELS, (0.05, 0.5, 0.95)):
            forecast = ask(trial.predictor, trial.context, levels)
            assert forecast.levels == levels
            forecast.checked(len(trial.context), HORIZON)

    def test_quantiles_rise_and_hold_prices_of_the_right_size(self, trial: ShortTraining) -> None:
        assert (np.diff(trial.forecast, axis=2) >= 0).all()
        ratio = trial.forecast / trial.context.last_close[:, None, None]
        assert ((ratio > 0.2) & (ratio < 5)).all()

    def test_the_same_context_gives_the_same_forecast(self, trial: ShortTraining) -> None:
        np.testing.assert_array_equal(ask(trial.predictor, trial.context).values, trial.forecast)

    def test_batch_size_and_order_change_no_forecast(self, trial: ShortTraining) -> None:
        reverse = np.arange(len(trial.context))[::-1]
        turned = ask(trial.predictor, trial.context.take(reverse)).values[reverse]
        alone = [
            ask(trial.predictor, trial.context.take(np.array([n]))).values
            for n in range(len(trial.context))
        ]
        np.testing.assert_allclose(turned, trial.forecast, rtol=self.tolerance)
        np.testing.assert_allclose(np.concatenate(alone), trial.forecast, rtol=self.tolerance)

    def test_a_short_context_is_what_a_young_item_has(self, trial: ShortTraining) -> None:
        rows = trial.context.values.shape[1] * 5 // 8
        short = shortened(trial.context, rows)
        masked = ask(trial.predictor, short).checked(len(short), HORIZON).values
        cut = ask(trial.predictor, trial.context.last(rows)).values
        np.testing.assert_allclose(masked, cut, rtol=self.tolerance)
        assert (np.diff(masked, axis=2) >= 0).all()

    def test_rescaled_prices_give_rescaled_forecasts(self, trial: ShortTraining) -> None:
        factor = np.array([8.0, 8.0, 8.0, 8.0, 1.0])  # a power of two: prices keep every digit
        scaled = dataclasses.replace(trial.context, values=trial.context.values * factor)
        forecast = ask(trial.predictor, scaled).values / 8.0
        np.testing.assert_allclose(forecast, trial.forecast, rtol=self.tolerance)

    def test_no_forecast_moves_when_only_the_future_is_changed(
        self, bench: Bench, trial: ShortTraining
    ) -> None:
        looked = check_no_leak(trial.predictor, bench.panel, bench.split)
        assert looked.num_forecasts >= 50
        assert looked.moved_by_last_bar > 0.5, "forecasts do not see the last bar of their context"

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
        trials, refused = [], []
        for value in (field.probe.first, field.probe.second):
            try:
                trials.append(bench.trial({**base, field.name: value}, steer=steer))
            except ConfigError as error:
                refused.append(str(error))
        if in_mode and not trials:
            return True
        assert trials, f"both values of {field.name} are refused, which shows nothing: {refused}"
        return len(trials) == 1 or _differ(*trials, weights=in_mode)

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


def _differ(first: ShortTraining, second: ShortTraining, *, weights: bool) -> bool:
    """Are the forecasts of two trials different, or, where they count, the weights?"""
    one, two = first.weights(), second.weights()
    moved = any(not np.array_equal(one[k], two[k]) for k in one)
    return (weights and moved) or not np.array_equal(first.forecast, second.forecast)
