# Two commands do all: `make train` and `make test`.  Each sets up what it needs in $(VENV) first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GPU_OUT ?= gpu-report

.PHONY: setup train test test-slow lint types docs bench gpu clean

train: $(VENV)/cli.stamp
	$(BIN)/gpumlp train

test: $(VENV)/test.stamp
	$(BIN)/pytest -n auto -p no:benchmark -m "not slow"

test-slow: $(VENV)/test.stamp
	$(BIN)/pytest -n auto -p no:benchmark -m slow

setup: $(VENV)/dev.stamp

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs docs/_build/html

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.compare_cpu
	$(BIN)/python -m benchmarks.cpu_epochs
	$(BIN)/python -m benchmarks.simple_chains
	$(BIN)/gpumlp bench --case small,tabular,launch --backend numpy
	$(BIN)/python -m benchmarks.streaming
	$(BIN)/python -m benchmarks.estimators
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/pytest benchmarks -q

# Run this on a machine with a GPU, in any Python that has gpumlp: make gpu PYTHON=.venv/bin/python
gpu:
	$(PYTHON) -m benchmarks.gpu_report $(GPU_OUT) $(STAGES)

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info

# one stamp an extra of pyproject.toml: cli, test, docs, dev
$(VENV)/%.stamp: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
