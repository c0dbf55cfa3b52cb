# Every target sets up what it needs: a virtual environment in .venv with the pinned requirements.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test lint format docs bench soak mutate clip-mini clean

quickstart: $(VENV)/.ready
	$(RUN) main.py sweep quickstart

test: $(VENV)/.ready-dev
	$(RUN) -m pytest -n 2

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# regenerates what is generated, then builds docs/_build/index.html; a broken link fails
docs: $(VENV)/.ready-dev
	$(RUN) -m docs.generate
	$(RUN) -m sphinx -b html -E -a -W --keep-going -q docs docs/_build

bench: $(VENV)/.ready-dev
	$(RUN) tests/bench/bench_image_cache.py
	$(RUN) tests/bench/bench_fingerprints.py
	$(RUN) tests/bench/bench_image_operations.py
	$(RUN) tests/bench/bench_retrieval.py
	$(RUN) tests/bench/bench_bertadam.py
	$(RUN) tests/bench/bench_pairwise.py
	$(RUN) tests/bench/bench_triplet.py
	$(RUN) tests/bench/bench_mith.py
	$(RUN) tests/bench/bench_centers.py
	$(RUN) tests/bench/bench_training_step.py
	$(RUN) tests/bench/bench_sweep_overhead.py

# minutes: leases under more schedules, and a sweep under kills, stops and jumping clocks
soak: $(VENV)/.ready-dev
	LEASE_MODEL_FACTOR=50 $(RUN) -m pytest -q tests/common/storage/test_lease_model.py
	$(RUN) tests/soak/soak_sweep.py

# realistic faults in a copy of the tree, one at a time: does a test notice? (minutes)
mutate: $(VENV)/.ready-dev
	$(RUN) -m tests.mutants

# the weights of backbone clip_mini, as shipped
clip-mini: $(VENV)/.ready
	$(RUN) -m runners.training.clip_mini

$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; give make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt requirements-docs.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .cache runs docs/_build .pytest_cache .ruff_cache .mypy_cache
