"""Toto with the settings that mended its training: `python tototraining/run_improved_training.py`.

The same as `foresweep train --model toto` with patch 32, context 512, gradient clip 1, quantile
loss and 30 epochs; it takes the same options, and what you `--set` stands in place of these. Over
`--pretrained` weights the patch size is theirs and the learning rate small.
"""

import sys

from foresweep.cli.main import main

IMPROVED = {"context_length": 512, "gradient_clip": 1.0, "loss_type": "quantile", "max_epochs": 30}
SCRATCH, WEIGHTS = {"patch_size": 32, "lr": 2e-3}, {"lr": 3e-4}

if __name__ == "__main__":
    said = sys.argv[1:]
    start = WEIGHTS if any(word.startswith("--pretrained") for word in said) else SCRATCH
    given = {word.removeprefix("--set=").partition("=")[0] for word in said}
    chosen = {k: v for k, v in {**IMPROVED, **start}.items() if k not in given}
    main(["train", "--model", "toto", *(f"--set={k}={v}" for k, v in chosen.items()), *said])
