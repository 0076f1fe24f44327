# Two commands do everything on a machine that has python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)  ## train on the phantom, explain at every validation, end with a summary
	$(BIN)/python -m lightning_chex fit

test: $(READY) lint  ## lint, types and every test
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check lightning_chex tests benchmarks
	$(BIN)/ruff format --check lightning_chex tests benchmarks
	$(BIN)/mypy

# Rebuilt when the dependencies change, and after an interrupted installation: the stamp is written last.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[dev]'
	# a reference in tests (LGPL); alone, as the opencv-python it asks for overwrites opencv-python-headless
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps 'quantus>=0.6,<0.7'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
