# `make` lists the targets. Everything runs in .venv, which is made on first use.
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin

# The first interpreter that starts and can make environments; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help bench nightly test test-all test-oldest test-gpu test-slurm mutants lint bench-plan bench-overhead bench-faults bench-scheduler bench-page pictures schema structure clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "no Python 3.11, 3.12 or 3.13 with the venv module was found." >&2; \
		echo "Debian and Ubuntu: apt install python3 python3-venv; or: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.bench

$(VENV)/.mutants: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,mutants]'
	@touch $@ $(VENV)/.dev $(VENV)/.bench

bench: $(VENV)/.bench  ## install, run the smoke matrix on whatever this machine has, print its tables
	@command -v c++ g++ clang++ >/dev/null 2>&1 || echo "note: no C++ compiler: compiled cells on CPU will be reported as missing.cxx" >&2
	@.ci/transformer-engine $(BIN)/python
	$(BIN)/bench +sweeps=smoke

nightly: $(VENV)/.bench  ## the nightly: run, verify, compare with the last good run (SWEEP=nightly on eight GPUs)
	BENCH="$(CURDIR)/$(BIN)/bench" .ci/nightly

test: $(VENV)/.dev lint  ## install, run all checks (7 to 10 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.dev lint  ## the slower suites too
	$(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile --no-loadscope-reorder

test-oldest:  ## all but the GPU suites with the oldest torch that pyproject.toml allows, and thunder, in an environment of its own
	$(MAKE) VENV=.venv-oldest .venv-oldest/.oldest
	.venv-oldest/bin/python -m pytest -m "not gpu" -n 2 --dist loadfile --no-loadscope-reorder

.venv-oldest/.oldest: pyproject.toml | .venv-oldest/bin/python
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,thunder]' \
		"torch==$$(sed -n 's/.*"torch>=\([0-9.]*\).*/\1/p' pyproject.toml).*"
	@touch $@

test-gpu: $(VENV)/.dev  ## the suites that need a CUDA device
	$(BIN)/python -m pytest -m gpu

test-slurm: $(VENV)/.dev  ## a real Slurm in a temporary folder (Debian: root, apt install slurm-wlm munge), about 20 minutes
	BENCH_TEST_SLURM=1 $(BIN)/python -m pytest -m slurm tests/slurm

mutants: $(VENV)/.mutants  ## what the tests of the parent's rooms would not see; MODULE=core/patterns for one module (hours for all, resumable)
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/mutants $(MODULE)

lint: $(VENV)/.dev  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-plan: $(VENV)/.bench  ## how long 10,000 cells take to plan, against Hydra's own composition
	$(BIN)/python benchmarks/plan_10k.py

bench-overhead: $(VENV)/.bench  ## cells against the hand-written loop, alternating (needs CUDA)
	$(BIN)/python benchmarks/overhead.py

bench-faults: $(VENV)/.bench  ## what becomes of a sweep when things die → docs/reliability.md (hours on 2 cores, --jobs for more)
	$(BIN)/python benchmarks/faults.py

bench-scheduler: $(VENV)/.bench  ## how busy 40 cells keep 4 devices: scripted, and real ones where there are GPUs
	$(BIN)/python benchmarks/scheduler.py

schema: $(VENV)/.bench  ## regenerate docs/record.schema.json
	$(BIN)/python -m benchrunner.store.record_schema

bench-page: $(VENV)/.bench  ## report.html of 10,000 cells: its size, how soon it opens and filters (needs Chromium)
	$(BIN)/python benchmarks/page.py

pictures: $(VENV)/.bench  ## the README's pictures, of outputs/latest or DIR=… (needs Chromium)
	$(BIN)/python docs/make_pictures.py $(or $(DIR),outputs/latest)

structure: $(VENV)/.dev  ## rewrite the rooms of docs/structure.md from the docstrings
	$(BIN)/python docs/make_structure.py

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf $(VENV) .venv-oldest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .mutants
