"""`python -m foresweep` is `foresweep`."""

from foresweep.cli.main import main

main()
