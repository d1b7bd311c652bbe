"""Does bfloat16 pay? Training in bf16 beside fp32, the same config otherwise, by width.

    python benchmarks/precision.py [toto] [kronos] [chronos2]

Whole short trainings through the models' own door, building and writing included, on one thread, in
turns: what a trial would gain. A device without units for bfloat16 loses by it; the default is bf16
from `training_config.BF16_WIDTH` on where `devices.bf16_is_fast`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pairs import Ratios, paired

from foresweep.evaluation.contract import HORIZON, Bench
from foresweep.evaluation.leaks import falling_scorer
from foresweep.models.base import TrainingJob, bf16_is_fast
from foresweep.models.registry import get_model

STEPS, ROUNDS = 8, 7
CONFIGS: Mapping[str, Callable[[int], Mapping[str, Any]]] = {
    "toto": lambda d: {"embed_dim": d, "num_heads": 8, "mlp_hidden_dim": 4 * d},
    "kronos": lambda d: {"d_model": d, "ff_dim": 2 * d, "num_layers": 4},
    "chronos2": lambda d: {"d_model": d, "d_ff": 4 * d},
}
WIDTHS = (64, 128, 256)


def ratio(name: str, width: int, folder: Path) -> Ratios:
    """bf16 (ours) beside fp32 (theirs)."""
    bench, numbers = Bench(get_model(name), folder), count()
    values = {"context_length": 128, "batch_size": 8, "max_steps": STEPS, "size": "tiny"}

    def training(precision: str) -> Callable[[], object]:
        config = bench.resolve({**values, **CONFIGS[name](width), "precision": precision})
        windows = bench.train_windows(bench.panel)

        def train() -> object:
            return bench.model.train(
                TrainingJob(
                    windows,
                    config,
                    horizon=HORIZON,
                    score=falling_scorer(),
                    out=folder / f"{name}-{width}-{next(numbers)}",
                )
            )

        return train

    return paired(training("bf16"), training("fp32"), rounds=ROUNDS, warm_up=1)


def main() -> None:
    torch.set_num_threads(1)
    print(f"units for bfloat16 on this CPU: {bf16_is_fast('cpu')}\n")
    print("| model | width | fp32 / bf16 | lower 95 % | bf16 ms a training | fp32 ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in sys.argv[1:] or CONFIGS:
        for width in WIDTHS:
            with tempfile.TemporaryDirectory() as folder:
                r = ratio(name, width, Path(folder))
            cells = f"{r.median:.2f} | {r.low95:.2f} | {r.ours_ms:.0f} | {r.theirs_ms:.0f}"
            print(f"| {name} | {width} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
