"""Sweep hyperparameters: `python run_sweep.py --model toto --mode priority --max-runs 3`.

The same as `foresweep sweep`, and it takes the same options; what is tried stands in
`hyperparams/sweep_configs.py` beside this file, to be edited.
"""

import sys
from pathlib import Path

from foresweep.cli.main import main

CONFIGS = Path(__file__).with_name("hyperparams") / "sweep_configs.py"

if __name__ == "__main__":
    said = sys.argv[1:]
    goes_on = any(word.partition("=")[0] == "--resume" for word in said)  # a sweep as it was asked
    use = [] if goes_on or not CONFIGS.is_file() else ["--configs", str(CONFIGS)]
    main(["sweep", *use, *said])
