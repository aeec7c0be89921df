# make run     the whole pipeline on the bundled digits    make image             the container image
# make check   while working: lint and the quick tests     make test-containers   the pipeline in containers, beside make run's
# make test    every test but those                        make lint              style, types, import rules
# make experiments   the plans of experiments/plan.md: many hours, may be stopped and goes on; DATA is the folder of the sets
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export DVC_NO_ANALYTICS := 1
export DIER_TIMINGS := .work/timings.jsonl

# One thread a worker: with more, the workers' threads wait for each other. A file's tests stay with one worker, for what they share.
PYTEST := OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run check test lint setup image test-containers experiments clean

setup: $(STAMP) .dvc/plots.html

# The pinned set goes in once; it goes in again only when one of the two files changes.
$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# DVC's plots page loads Vega from a CDN; this one carries it.
.dvc/plots.html: $(STAMP) tools/plots_page.py
	$(BIN)/python -m tools.plots_page $@

run: setup
	rm -f $(DIER_TIMINGS)
	start=$$(date +%s); PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro && $(BIN)/dier summary \
	  && echo "whole run     $$(( $$(date +%s) - start )) s"

check: lint
	$(PYTEST) -m "not slow and not engine" --durations 5 --durations-min 1.5

test: setup
	$(PYTEST) --durations 15 $(ONLY)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docker or podman; FLAVOUR=cpu, BASE_IMAGE and more: see the script.
image:
	PYTHON=$(PYTHON) pipeline/image/build.sh

# On the engine of DOCKER_HOST, with the image that make image built, compared with artifacts/ of make run.
test-containers: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest tests/containers -rs -s --durations 8 $(ONLY)

# Hours: python -m experiments.contest --dry-run says how many are left. The plans must be committed, as test is read.
DATA ?= real-data
JOBS ?= 2
MORE_PLANS := studies longer
RACE := OMP_NUM_THREADS=1 $(BIN)/python -m experiments.choose_t --plan experiments/race.json --data $(DATA) --train 5000 --val 5000 --test 5000
experiments: setup
	$(BIN)/python -m experiments.contest --data $(DATA) --jobs $(JOBS) --test
	for plan in $(MORE_PLANS); do $(BIN)/python -m experiments.contest --plan experiments/$$plan.json --out experiments/results/$$plan --data $(DATA) --jobs $(JOBS) --test || exit; done
	$(RACE) --row "DiER, eps" --models .work/race-eps --out experiments/results/race-eps.jsonl
	$(RACE) --row DiER --models .work/race-x0 --out experiments/results/race-x0.jsonl
	$(BIN)/python -m experiments.choosing experiments/results/race-eps.jsonl --out experiments/results/regret-eps.csv
	$(BIN)/python -m experiments.choosing experiments/results/race-x0.jsonl --out experiments/results/regret-x0.csv
	$(BIN)/python -m experiments.tables --page docs/results.md
	$(BIN)/python -m experiments.plots
	for plan in $(MORE_PLANS); do \
	  $(BIN)/python -m experiments.tables --plan experiments/$$plan.json --results experiments/results/$$plan --page docs/results.md && \
	  $(BIN)/python -m experiments.plots --tables experiments/results/$$plan --name $$plan || exit; done

clean:
	rm -rf artifacts .work dvc_plots
