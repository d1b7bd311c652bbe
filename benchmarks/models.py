"""How fast are the models beside their authors' own code?

    python benchmarks/models.py [--quick] [--write] [--only toto,kronos,chronos2,workers]

One process, one thread; both sides of every line run in turns (pairs.py says how). `--write` puts
the tables into README.md beside this file, each family's between its own marks. What is compared
with what stands at the top of models_<family>.py.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

FAMILIES = ("toto", "kronos", "chronos2", "workers")
README = Path(__file__).parent / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--only", default=",".join(FAMILIES), help="families, by commas")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for family in asked.only.split(","):
        if family not in FAMILIES:
            parser.error(f"--only {family}: give some of {', '.join(FAMILIES)}")
        text = measured(family, asked.quick)
        print(f"\n{family}\n\n{text}", flush=True)
        if asked.write:
            write(family, text)


def measured(family: str, quick: bool) -> str:
    """The family's table, and what it was measured on."""
    import torch
    from pairs import table

    torch.set_num_threads(1)
    lines = table(importlib.import_module(f"models_{family}").rows(quick))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    where = f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores"
    return f"{lines}\n\n{where}, one thread, load {load:.1f} at the end."


def write(family: str, text: str) -> None:
    """Replace what stands between the family's marks in README.md."""
    begin, end = f"<!-- models:{family} -->", f"<!-- /models:{family} -->"
    page = README.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        sys.exit(f"{README} has no place for {family}: put {begin} and {end} there")
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    README.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
