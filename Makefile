# make repro   build the environment, then run the recipe named in params.yaml through DVC
# make test    build the environment, then run lint, type checks and all tests
# make check   lint and type checks alone
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Every child finds the project's own tools first, whatever environment the shell is in.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: repro test check clean

repro: .venv/.installed
	$(BIN)/python -m pipelines.shared_ray -- $(BIN)/dvc repro

test: check
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(BIN)/python -m pytest -n 2 -m slow

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
