# The six verbs of the project. Nothing is needed beforehand but Python 3.11 or newer: `make PYTHON=python3.12 demo`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# Tests and benchmarks find the data sets here; without them they skip, saying so.
DATA := $(abspath ../shared/data)
ifneq ($(wildcard $(DATA)),)
export BERUNDA_DATA ?= $(DATA)
endif

.PHONY: demo test test-all lint bench docs

## The main job on a real scene: fetch it, train, map, report.
demo: $(VENV)/installed
	$(RUN) -m berunda demo --out demo-out
	@echo "Report: $(abspath demo-out/report.html)"

## The tests, under eight minutes on two cores.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" -n auto --dist loadfile

## All tests, with the long counts, and the fast ones with the lowest versions that pyproject.toml allows.
test-all: $(VENV)/installed-dev
	$(RUN) -m pytest
	$(RUN) tools/lowest.py

## Style, types, and known vulnerabilities in what is installed.
lint: $(VENV)/installed-dev
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(RUN) tools/audit.py

## The benchmarks that are behind every figure; they go on where they were stopped. Long.
bench: $(VENV)/installed-dev
	@for script in $(filter-out %/figures.py %/hvae_pictures.py %/densities.py benchmarks/gpu_%,$(wildcard benchmarks/*.py)); do \
		echo "$$script"; $(RUN) $$script || exit 1; \
	done
	$(RUN) -m berunda bench eurosat --methods features_logreg,features_propagate,supervised,propagate \
		--labels 1,5,20 --seeds 3 --out benchmarks/results
	$(RUN) -m berunda bench eurosat_all --out benchmarks/results
	$(RUN) -m berunda bench dubai --labels 4 --seeds 2 --out benchmarks/results
	$(RUN) -m berunda bench ucmerced_multilabel --out benchmarks/results
	$(RUN) -m berunda bench weighting_scenes --out benchmarks/results
	$(RUN) -m berunda bench weighting --data dubai --out benchmarks/results
	$(RUN) -m berunda bench weighting_labels --out benchmarks/results
	$(RUN) -m berunda bench eurosat_energy --out benchmarks/results
	$(RUN) -m berunda bench eurosat_energy_held_out --out benchmarks/results
	$(RUN) benchmarks/figures.py

## The generated parts of the documentation.
docs: $(VENV)/installed-dev
	$(RUN) docs/import_graph.py
	$(RUN) docs/pages.py
	$(RUN) benchmarks/figures.py

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Berunda needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment; install its venv module (Debian: python3-venv)."; exit 1; }

$(VENV)/installed: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed
