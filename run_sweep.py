"""Sweep hyperparameters: `python run_sweep.py --model toto --mode priority --max-runs 3`.

The same as `foresweep sweep`, and it takes the same options.
"""

import sys

from foresweep.cli.main import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
