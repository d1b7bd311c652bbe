# Two commands matter: `make demo` and `make test`. Each builds its own environment when needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
PLUGINS := examples/foresweep-fracast examples/foresweep-t0 examples/foresweep-timesfm
# One thread a process: on few cores two spinning OpenMP teams are many times slower than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
SHARED := --dist loadgroup --no-loadscope-reorder
# Kept bytecode, whatever the machine says: without it each of the tests' processes compiles anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo install check test test-fast lowest soak gates fmt bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt $(PLUGINS:=/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "foresweep needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' $(PLUGINS:%=-e %)
	touch $(READY)

install: $(READY)  ## make .venv and install everything from constraints.txt

demo: $(READY)  ## sweep all three models on real prices; name, judge, export and use the best
	$(BIN)/foresweep sweep --model all --mode demo --data demo
	$(BIN)/foresweep verdict || test $$? -ge 3  # 3 and 4 are verdicts, not errors
	$(BIN)/foresweep best --export-path
	$(BIN)/foresweep predict --data demo
	$(BIN)/foresweep report -o report.md
	$(BIN)/foresweep report -o report.html
	@echo 'Open report.html; then your own prices: foresweep data check FOLDER, foresweep sweep --model all --data FOLDER'

check: $(READY)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(READY)  ## every test (what CI runs)
	$(BIN)/pip check
	$(BIN)/pytest -n 2 $(SHARED) -m 'not soak'

test-fast: $(READY)  ## the tests that train nothing and start nothing
	$(BIN)/pytest -n 2 $(SHARED) -m 'not slow and not soak'

lowest: $(READY)  ## the lowest versions pyproject.toml names, no extras, in an environment of their own
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/lowest
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest/bin/python -c constraints-lowest.txt -e .
	$(VENV)/lowest/bin/python tests/lowest.py

soak: $(READY)  ## the long campaigns
	$(BIN)/pytest -m soak -rP  # what passed says its counts

gates: $(READY)  ## size and power of every gate of the verdict, into docs/verdict.md (12 minutes of one core)
	$(BIN)/python benchmarks/verdict_attacks.py --write

fmt: $(READY)  ## format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## the benchmarks, peers beside us
	for file in tracker models precision scoring overhead; do $(BIN)/python benchmarks/$$file.py; done

clean:  ## remove caches and builds (never runs or databases)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
