"""Select the best model: `python select_best_model.py --model toto`, `--interactive`, `--top-k 10`,
`--export-path`, `--metric`, `--maximize`, `--minimize`.

The same as `foresweep best`, and it takes the same options.
"""

import sys

from foresweep.cli.main import main

if __name__ == "__main__":
    main(["best", *sys.argv[1:]])
