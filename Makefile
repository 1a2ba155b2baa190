# Small enough for the default run that activations spill to the SSD tier.
DEVICE_MEMORY ?= 96MiB
PYTHON ?= python3

PLUGINS := $(wildcard plugins/*)
VENV := .venv
READY := $(VENV)/ready

.PHONY: run test test-all lint kernels clean

run: $(READY)
	$(VENV)/bin/flexgnn run --device-memory $(DEVICE_MEMORY)

# Two workers: kernels use every core, but much of a test is waiting and planning.
test: lint
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: lint
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FlexGNN needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev,metis]' $(PLUGINS:%=--editable '%[test]')
	touch $@

kernels:
	find flexgnn tests benchmarks -name '*.nb[ic]' -delete

clean: kernels
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
