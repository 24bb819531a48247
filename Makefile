# Everything sets itself up: each target works alone on a fresh machine (Debian, Python 3.11, pip) and again, fast, on a used one.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PORT   ?= 8000
JOBS   ?= 2
MEDIA  ?= ../shared/media
STARTER ?= bindery/bundles/starter
BENCHES ?= hostile livez http_cost http_workers engine_overhead prefetch sessions load_time fusions indexing precisions serving search

.PHONY: help serve test test-all check format bench starter starter-eval smoke container clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) --editable '.[cpu]'
	@touch $@

# The exact torch pin goes first and alone: wherever pip is configured to find a CPU build, it answers this pin.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.serve

serve: $(VENV)/.serve ## set up, then serve the starter on :8000
	$(BIN)/bindery serve --port $(PORT)

test: $(VENV)/.dev ## set up, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m 'not slow and not gpu'

test-all: $(VENV)/.dev ## the slow, soak and GPU tests too
	$(BIN)/python -m pytest -n $(JOBS)

check: $(VENV)/.dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## every benchmark that needs nothing else (hours); results as JSON in bench/results
	set -e; for bench in $(BENCHES); do echo "$$bench"; $(BIN)/python bench/$$bench.py; done

starter: $(VENV)/.dev ## train the starter from MEDIA (../shared/media) and write its bundle
	BIN=$(BIN) training/starter/make.sh $(MEDIA) $(STARTER)

starter-eval: $(VENV)/.dev ## measure the committed starter on the val split of MEDIA: the table of its model card
	$(BIN)/bindery-eval starter starter --data $(MEDIA) --device cpu

smoke: ## drive every endpoint of the service that runs on PORT
	$(PYTHON) -B deploy/smoke.py http://localhost:$(PORT)

container: ## build the image, run the compose file and the smoke check with podman (root, Debian)
	deploy/run-containers.sh

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build ./*.egg-info
