# make repro   build the environment, then run the recipe named in params.yaml through DVC
# make test    build the environment, then run lint, type checks and tests
# make test-long   tests of whole recipes: the paper's on pieces of real data, each network, exported files
# make check   lint and type checks alone
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Every child finds the project's own tools first, whatever environment the shell is in.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Two processes of one thread each: the tests' tensors are small.
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: repro test test-long check clean

repro: .venv/.installed
	$(BIN)/python -m pipelines.shared_ray -- $(BIN)/dvc repro

test: check
	$(TWO) -m "not slow"
	$(TWO) -m "slow and not pipeline and not long"
	$(BIN)/python -m pytest -m "pipeline and not long"

test-long: .venv/.installed
	$(TWO) -m "long and not pipeline"
	$(BIN)/python -m pytest -m "long and pipeline"

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else \
	    f"The pinned packages need Python 3.11 or 3.12, this is {v[0]}.{v[1]}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv data runs
