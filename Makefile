# Two commands do everything on a machine that has python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := -m pip install --quiet --progress-bar off
LOCK := requirements.lock

.PHONY: demo test docs claims-quick lint lock clean

demo: $(READY)  ## train on the phantom, explain at every validation, end with a summary
	$(BIN)/python -m lightning_chex fit

test: $(READY) lint  ## lint, types and every test, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(READY)  ## the documentation site, in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

claims-quick: $(READY)  ## the claims of the paper on few cases; benchmarks/results/claims.md is the full run
	$(BIN)/python -m benchmarks.claims --quick --work .claims --out .claims/claims

lint: $(READY)
	$(BIN)/ruff check lightning_chex tests benchmarks
	$(BIN)/ruff format --check lightning_chex tests benchmarks
	$(BIN)/mypy

# Quantus, a reference in tests (GPL), comes alone: the opencv-python it asks for overwrites opencv-python-headless.
define install
	$(PYTHON) -m venv $(1)
	$(1)/bin/python $(PIP) --upgrade pip $(2)
	$(1)/bin/python $(PIP) -e '.[dev]' $(2)
	$(1)/bin/python $(PIP) --no-deps 'quantus>=0.6,<0.7' $(2)
endef

# Rebuilt when the dependencies change, and after an interrupted installation: the stamp is written last.
# `make test LOCK=` takes the newest versions instead, for a Python or a platform that lacks one of those locked.
$(READY): pyproject.toml $(LOCK)
	$(call install,$(VENV),$(if $(LOCK),--constraint $(LOCK)))
	touch $(READY)

lock:  ## write down the newest versions that pyproject.toml admits; run the tests with them before they are committed
	rm -rf .venv-lock
	$(call install,.venv-lock,)
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --all --exclude-editable; } > .venv-lock/new
	mv .venv-lock/new requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-lock docs/_build docs/notebooks .pytest_cache .ruff_cache .mypy_cache *.egg-info
