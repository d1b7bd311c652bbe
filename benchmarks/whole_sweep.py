"""The demo's six trials and their scores: by the authors' own code, and by ours, in one run.

    python benchmarks/whole_sweep.py [--panel demo] [--windows 64] [--steps N] [--write]

Each config of `--mode demo` is trained for as many steps and asked for the same windows of tune and
val on both sides, in turns, one thread; told are CPU seconds, which a busy machine changes less
than the clock. Ours is a trial as a sweep runs it: the steps, the scorings on the way, tune and val
scored. Theirs:

- Toto: `FinetuneDataModule`, `TotoForFinetuning` and Lightning's Trainer; `TotoForecaster` with its
  key-value cache and 256 samples, as its README has it.
- Chronos-2: `Chronos2Pipeline.fit` and `predict_quantiles`.
- Kronos: the steps of the authors' two finetune scripts (which need torchrun, CUDA and qlib, so
  that their loops stand here), handed their windows ready made; `KronosPredictor.predict_batch`.

Their predictors are timed on `--windows` windows and reckoned for all. Theirs scores nothing (no
metric is counted) and, in the first ratio, chooses no step; in the second its predictor is asked
for the steering windows eight times, as ours is.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pandas as pd
import torch

from foresweep.data.panel import Panel
from foresweep.data.reading.sources import load_panel
from foresweep.data.splits import Cut, Split, make_split
from foresweep.data.windows import Context, TrainWindows, Windows
from foresweep.evaluation.backtest import OPEN_PARTS, evaluate, make_scorer
from foresweep.evaluation.steering import steering_windows, windows_wanted
from foresweep.models.base import (
    DEFAULT_LEVELS,
    Facts,
    Resources,
    TrainingJob,
    make_config,
)
from foresweep.models.registry import FAMILIES, get_model
from foresweep.models.training.loop import EVALUATIONS, seeded
from foresweep.search.propose.modes import propose

README = Path(__file__).parent / "README.md"
HORIZON, SAMPLES, BATCH = 5, 256, 16
WARM_UP = 8
TOKENIZER_CLIP, PREDICTOR_CLIP = 2.0, 3.0
MARKS = ("<!-- whole_sweep -->", "<!-- /whole_sweep -->")
Forecasts = Callable[[Context], object]


@dataclass(frozen=True)
class Task:
    """What both sides are given."""

    panel: Panel
    split: Split
    model: str
    config: Any  # resolved
    note: str

    @property
    def train(self) -> TrainWindows:
        return TrainWindows(self.panel, self.split, self.split.part("train"))

    def windows(self, part: str) -> Windows:
        return Windows(self.panel, self.split, self.split.part(part))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cost:
    """CPU seconds."""

    training: float
    steering: float
    scoring: float

    @property
    def whole(self) -> float:
        return self.training + self.steering + self.scoring


def tasks(panel: Panel, steps: int | None) -> list[Task]:
    """The demo's configs as a sweep resolves them; `steps` caps theirs."""
    split = make_split(panel, Cut(HORIZON))
    train = TrainWindows(panel, split, split.part("train"))
    bars = sum(len(train.values(i)) for i in range(panel.num_items))
    facts = Facts(HORIZON, split.max_context, bars, step_cap=steps)
    found = []
    for proposal in propose(FAMILIES, "demo", base={}, seed=0, count=2):
        model = get_model(proposal.model)
        values = {"size": "tiny", **proposal.config}
        config = model.resolve(make_config(model.Config, values, model=proposal.model), facts)
        note = proposal.source.partition(": ")[2]
        found.append(Task(panel, split, proposal.model, config, note))
    return found


def spent(do: Callable[[], Any]) -> tuple[Any, float]:
    """What comes of it, and its CPU seconds."""
    started = time.process_time()
    made = do()
    return made, time.process_time() - started


def ours(task: Task) -> Cost:
    """A trial as a sweep runs it."""
    steering = [0.0]
    wanted = windows_wanted(None, task.config.max_steps)
    score = make_scorer(task.panel, task.split, steer=wanted)

    def watched(predictor: Any) -> Any:
        found, seconds = spent(lambda: score(predictor))
        steering[0] += seconds
        return found

    model, resources = get_model(task.model), Resources(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            task.train, task.config, resources, horizon=HORIZON, score=watched,
            out=Path(folder) / "checkpoint",
        )  # fmt: skip
        made, training = spent(lambda: model.train(job))
        _, scoring = spent(
            lambda: evaluate(
                model.load(made, resources), task.panel, task.split,
                parts=OPEN_PARTS, out=Path(folder) / "out",
            )
        )  # fmt: skip
    return Cost(training - steering[0], steering[0], scoring)


def theirs(task: Task, sample: int) -> Cost:
    """The same by the authors' code."""
    side = {"toto": their_toto, "chronos2": their_chronos2, "kronos": their_kronos}[task.model]
    with seeded(0, Resources()), tempfile.TemporaryDirectory() as folder:
        torch.use_deterministic_algorithms(False)
        forecasts, training = spent(lambda: side(task, Path(folder)))
        tune, val = (task.windows(part) for part in OPEN_PARTS)
        chosen = np.linspace(0, len(val) - 1, min(sample, len(val))).astype(int)
        length = task.config.context_length
        forecasts(val.context(length, chosen[:2]))
        started = time.process_time()
        for at in range(0, len(chosen), BATCH):
            forecasts(val.context(length, chosen[at : at + BATCH]))
        window = (time.process_time() - started) / len(chosen)
    some = steering_windows(tune, windows_wanted(None, task.config.max_steps), 0)
    return Cost(training, EVALUATIONS * len(some) * window, (len(tune) + len(val)) * window)


def their_toto(task: Task, folder: Path) -> Forecasts:
    """Fine-tuning on the channels that ours sees, one field each."""
    import datasets
    from lightning.pytorch import Trainer
    from toto.data.datamodule.finetune_datamodule import FinetuneDataModule
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster
    from toto.model.lightning_module import TotoForFinetuning

    from foresweep.models.toto import network as nets

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    config = task.config
    view, patch = config.view(HORIZON), config.patch_size
    names = [f"channel{k}" for k in range(view.num_channels)]
    rows = []
    for item in range(task.panel.num_items):
        bars = task.train.values(item)
        channels = view.encode(bars[None], len(bars)).channels[0, :, view.lag :]
        clock = np.arange(channels.shape[1]).astype("datetime64[D]").astype("datetime64[ms]")
        row = {"id": task.panel.items[item], "timestamp": clock}
        rows.append(row | dict(zip(names, channels, strict=True)) | {"feature": channels[0]})
    dataset = datasets.Dataset.from_list(rows)
    dataset.set_format("numpy")
    options = nets.network_options(config.architecture, config.dropout)
    usable = (config.context_length - view.lag) // patch * patch
    data = FinetuneDataModule(
        dataset=dataset,
        max_context_length=usable,
        prediction_horizon=patch,
        patch_size=patch,
        train_batch_size=config.batch_size,
        num_train_samples=config.max_steps * config.batch_size // task.panel.num_items + 1,
        target_fields=names,
        target_transform_fns=[as_it_is] * len(names),
        ev_fields=["feature"],
        ev_transform_fns=[as_it_is],
    )
    module = TotoForFinetuning(
        pretrained_backbone=nets.build(options), lr=config.lr,
        warmup_steps=max(1, config.max_steps // 10),
    )  # fmt: skip
    trainer = Trainer(
        max_steps=config.max_steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    if trainer.global_step != config.max_steps:
        raise SystemExit(f"Toto's trainer took {trainer.global_step} of {config.max_steps} steps")
    forecaster = TotoForecaster(module.model.eval())

    def forecasts(context: Context) -> object:
        channels = view.encode(context.values, context.values.shape[1]).channels[:, :, -usable:]
        series = torch.from_numpy(channels).float()
        clock = torch.arange(usable).expand(series.shape)
        groups = torch.ones(series.shape[:2]).long()
        seen = MaskedTimeseries(series, *nets.masks(series), clock, groups)
        made = forecaster.forecast(
            seen, prediction_length=HORIZON, num_samples=SAMPLES, samples_per_batch=SAMPLES,
            use_kv_cache=True,
        )  # fmt: skip
        return made.quantile(torch.tensor(DEFAULT_LEVELS))

    return forecasts


def as_it_is(values: Any) -> Any:
    return values


def their_chronos2(task: Task, folder: Path) -> Forecasts:
    """`fit` on the channels that ours sees: targets, and past covariates."""
    from chronos import Chronos2Pipeline
    from chronos.chronos2 import Chronos2Model
    from transformers.utils import logging as quiet

    from foresweep.models.chronos2 import network as net
    from foresweep.models.chronos2.model import _core

    quiet.disable_progress_bar()
    config = task.config
    view = config.view(HORIZON)
    own = net.build(_core(config, HORIZON))
    network = Chronos2Model(own.config)
    network.load_state_dict(own.state_dict())
    series = []
    for item in range(task.panel.num_items):
        bars = task.train.values(item)
        series.append(as_input(view, view.encode(bars[None], len(bars)).channels[0]))
    pipeline = Chronos2Pipeline(network).fit(
        series,
        prediction_length=HORIZON,
        context_length=config.context_length,
        min_past=config.context_length,
        learning_rate=config.lr,
        num_steps=config.max_steps,
        batch_size=config.batch_size * view.num_channels,  # it counts channels
        output_dir=folder,
        remove_printer_callback=True,
        disable_tqdm=True,
    )

    def forecasts(context: Context) -> object:
        channels = view.encode(context.values, context.values.shape[1]).channels
        inputs = [as_input(view, one) for one in channels]
        return pipeline.predict_quantiles(inputs, HORIZON, quantile_levels=list(DEFAULT_LEVELS))

    return forecasts


def as_input(view: Any, channels: Any) -> dict[str, Any]:
    """Channels [V, R] as the pipeline takes them."""
    seen = channels.astype(np.float32)
    found: dict[str, Any] = {"target": seen[: view.num_targets]}
    if view.num_channels > view.num_targets:
        more = seen[view.num_targets :]
        found["past_covariates"] = {f"covariate{k}": row for k, row in enumerate(more)}
    return found


def their_kronos(task: Task, folder: Path) -> Forecasts:
    """train_tokenizer.py, then train_predictor.py, then the package's predictor."""
    from kronos_finance._vendor.kronos_model.kronos import KronosPredictor as TheirPredictor

    from foresweep.models.kronos.config import architecture_of, build, tokenizer_steps
    from foresweep.models.kronos.model import TrainingBars, encode, time_stamps

    config, rng = task.config, np.random.default_rng(0)
    nets = build(architecture_of(config))
    bars = TrainingBars(task.train, config, config.prediction_length)
    ready = []
    for _ in range(32):
        drawn = bars.draw(rng, config.batch_size)
        stamps = torch.from_numpy(time_stamps(drawn.timestamps))
        ready.append((torch.from_numpy(bars.seen(drawn.bars)), stamps))
    first = tokenizer_steps(config)
    mse = torch.nn.functional.mse_loss

    def reconstruct(batch: Any) -> Any:
        (coarse, both), quantizer, _, _ = nets.tokenizer(batch[0])
        return (mse(coarse, batch[0]) + mse(both, batch[0]) + quantizer) / 2

    def next_token(batch: Any) -> Any:
        coarse, fine = encode(nets.tokenizer, batch[0])
        logits = nets.predictor(coarse[:, :-1], fine[:, :-1], batch[1][:, :-1])
        return nets.predictor.head.compute_loss(*logits, coarse[:, 1:], fine[:, 1:])[0]

    script(nets.tokenizer, reconstruct, ready, first, config.lr, TOKENIZER_CLIP, {})
    nets.tokenizer.requires_grad_(False).eval()
    betas = {"betas": (0.9, 0.95)}
    steps = config.max_steps - first
    script(nets.predictor, next_token, ready, steps, config.lr, PREDICTOR_CLIP, betas)
    nets.eval()
    predictor = TheirPredictor(nets.predictor, nets.tokenizer, device="cpu", max_context=512)

    def forecasts(context: Context) -> object:
        frames = [pd.DataFrame(v, columns=list(context.columns)) for v in context.values]
        past = [pd.Series(t) for t in context.timestamps]
        ahead = [pd.Series(t[:HORIZON]) for t in context.future_timestamps]
        return predictor.predict_batch(
            frames, past, ahead, HORIZON, T=config.temperature, top_p=config.top_p,
            sample_count=config.num_samples, verbose=False,
        )  # fmt: skip

    return forecasts


def script(
    net: Any, loss_of: Any, batches: Any, steps: int, lr: float, clip: float, more: dict[str, Any]
) -> None:
    """The loop of the authors' finetune scripts: AdamW, OneCycle, clipping."""
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.1, **more)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps, pct_start=0.03, div_factor=10
    )
    for step in range(steps):
        loss = loss_of(batches[step % len(batches)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=clip)
        optimizer.step()
        rate.step()


def table(costs: list[tuple[Task, Cost, Cost]]) -> str:
    """Both sides by trial, and all six."""
    lines = [
        "| trial | ours: steps | on the way | tune and val | theirs: steps | tune and val "
        "| theirs / ours | theirs scored on the way, too |",
        "|---|" + "---:|" * 7,
    ]
    sums = [Cost(*(sum(asdict(row[k])[f] for row in costs) for f in ("training", "steering",
            "scoring"))) for k in (1, 2)]  # fmt: skip
    named = [(f"{task.model}, {task.note}", mine, other) for task, mine, other in costs]
    for name, mine, other in (*named, ("all six", *sums)):
        lines.append(
            f"| {name} | {mine.training:.1f} s | {mine.steering:.1f} s | {mine.scoring:.1f} s "
            f"| {other.training:.1f} s | {other.scoring:.1f} s "
            f"| {(other.training + other.scoring) / mine.whole:.1f} "
            f"| {other.whole / mine.whole:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--panel", default="demo")
    parser.add_argument("--windows", type=int, default=64, help="their predictors are timed on")
    parser.add_argument("--steps", type=int, help="at most, for a quick look")
    parser.add_argument("--model", action="append", choices=FAMILIES)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    panel = load_panel(asked.panel).panel
    for task in tasks(panel, WARM_UP)[: len(FAMILIES)]:  # what a process pays once
        if not asked.model or task.model in asked.model:
            ours(task)
            theirs(task, 4)
    costs = []
    for turn, task in enumerate(tasks(panel, asked.steps)):
        if asked.model and task.model not in asked.model:
            continue
        found = {}
        for side in ("ours", "theirs")[:: 1 if turn % 2 else -1]:
            found[side] = ours(task) if side == "ours" else theirs(task, asked.windows)
        costs.append((task, found["ours"], found["theirs"]))
        print(task.model, task.note, found, flush=True)
    where = (
        f"CPU seconds of one thread; {panel.num_items} items, H={HORIZON}. Python "
        f"{platform.python_version()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} "
        f"at the end."
    )
    text = f"{table(costs)}\n\n{where}"
    print(f"\n{text}")
    if asked.write:
        page = README.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0], 1)
        README.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}")


if __name__ == "__main__":
    sys.exit(main())
