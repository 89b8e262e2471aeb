# `make` lists the targets: each is described after the ## of its line.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Every child finds the project's own tools first, whatever environment the shell is in.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Two processes of one thread each: the tests' tensors are small.
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# Those that start Ray wait much: two files at once, each with a Ray of its own, in the order of tests/conftest.py.
RAY := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Nothing is compiled when it is installed (--no-compile below), so the first import has to keep what it compiles.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: repro verify test test-fast test-long check docs clean clean-checkpoints help

repro: .venv/.installed  ## build the environment, then run the recipe named in params.yaml through DVC
	$(BIN)/python -m pipelines.shared_ray -- $(BIN)/dvc repro

verify: .venv/.installed  ## compare what make repro has made here with the committed run: data, weights, figures
	$(BIN)/python -m stages.verify

test: check  ## build the environment, then run lint, type checks and the tests
	$(TWO) -m "not slow"
	$(TWO) -m "slow and not pipeline and not long"
	$(RAY) -m "pipeline and not long"

test-fast: .venv/.installed  ## only the tests that take seconds: under three minutes on two cores
	$(TWO) -m "not slow" --timeout 60

test-long: .venv/.installed  ## tests of whole recipes: the paper's on pieces of real data, two hosts, faults, exported files
	$(TWO) -m "long and not pipeline"
	$(RAY) -m "long and pipeline"

check: .venv/.installed  ## lint and type checks alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed  ## the documentation as a site, site/index.html; python -m http.server -d site also searches
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else \
	    f"The pinned packages need Python 3.11 or 3.12, this is {v[0]}.{v[1]}: run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@# Python compiles modules at their first import; pip would compile all of them.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[dev]"
	-@$(BIN)/python -c 'from kernels import native; native.available()'  # compiled now, not at the first prediction
	@[ ! -d .dvc ] || $(BIN)/dvc config --local core.site_cache_dir "$(CURDIR)/.dvc/tmp/site_cache" 2>/dev/null || \
	    echo "DVC stores no letter outside ASCII: before you type dvc, set DVC_SITE_CACHE_DIR=$(CURDIR)/.dvc/tmp/site_cache"
	touch $@

clean:  ## delete the environment, the datasets and the results
	rm -rf .venv data runs

clean-checkpoints: .venv/.installed  ## delete trainings that other parameters, data or code began than the present ones
	$(BIN)/python -m stages.checkpoints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
