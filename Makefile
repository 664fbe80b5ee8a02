# `make` alone lists what there is.

BASE_PYTHON ?= python3.11
VENV ?= .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
WORKERS ?= 2
PYTEST := $(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-extras chromium test-server slow docs lint format size benchmark clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

venv: $(VENV)/.installed  ## make .venv from requirements.txt, once and again when it changes

demo: $(VENV)/.installed  ## run the whole line on drawn scenes, and on a terminal show them on a page: PORT=7860
	$(PYTHON) -m pipelines.demo $(if $(PORT),--port $(PORT))

test: $(VENV)/.installed-dev  ## run the quick tests (at most 8 minutes on 2 cores)
	$(PYTEST) -m "not slow and not extras and (sentinel or not (process or full))"

test-all: $(VENV)/.installed-dev  ## run all tests but the slow proofs and the extras' (at most 30 minutes)
	$(PYTEST)

test-extras: chromium $(VENV)/.installed-extras  ## run the tests that need Chromium, Ray, Milvus, runtimes or the site (at most 20 minutes)
	$(PYTEST) -m extras tests/extras

chromium:
	@command -v chromium >/dev/null || \
	  { echo "chromium is not installed: apt-get install chromium" >&2; exit 1; }

test-server: $(if $(and $(ADDRESS),$(MODEL)),$(VENV)/.installed-dev)  ## test a model server: ADDRESS=HOST:GRPC:REST MODEL=saved_models/NAME
	@test -n "$(ADDRESS)" -a -d "$(MODEL)" || { echo "name a server and a folder with the export that it serves:" \
	  "make test-server ADDRESS=HOST:GRPC:REST MODEL=saved_models/NAME" >&2; exit 2; }
	TF_DPCE_SERVER="$(ADDRESS)" TF_DPCE_MODEL="$(MODEL)" $(PYTHON) -m pytest \
	  tests/unit/serving/test_contract.py tests/unit/serving/test_client.py

slow: $(VENV)/.installed-dev  ## run the proofs that take minutes each
	$(PYTHON) -m pytest -m slow

docs: $(VENV)/.installed-docs  ## build the site of the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict
	@echo build/site/index.html

lint: $(VENV)/.installed-dev  ## check style and the order of packages without changing anything
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.installed-dev  ## repair what the linter can repair
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

size: $(VENV)/.installed-dev  ## count lines of code and compare them with .ci/limits.toml
	$(PYTHON) .ci/size.py

benchmark: $(VENV)/.installed-bench  ## time ours beside other tools, an hour on 2 cores: NAMES="train input"
	$(PYTHON) -m benchmarks.pairs $(if $(NAMES),--names $(NAMES)) $(if $(IMAGES),--images $(IMAGES))
	$(PYTHON) -m benchmarks.table

clean:  ## remove caches and build products; runs, data and saved models stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -exec rm -rf {} +

# The stamps are younger than the lists they were made from, or are made again.
$(VENV)/.installed: requirements.txt
	@command -v $(BASE_PYTHON) >/dev/null || \
	  { echo "$(BASE_PYTHON) is not installed: install it, or name another with BASE_PYTHON=python3.12" >&2; exit 1; }
	@echo "installing requirements.txt into $(VENV): 3 minutes and 4 GB the first time"
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(PIP) install -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed requirements-docs.txt
	$(PIP) install -r requirements-docs.txt
	@touch $@

$(VENV)/.installed-extras: $(VENV)/.installed-dev requirements-extras.txt requirements-docs.txt requirements-ray.txt requirements-milvus.txt requirements-runtimes.txt
	$(PIP) install -r requirements-extras.txt
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed requirements-bench.txt requirements-runtimes.txt
	$(PIP) install -r requirements-bench.txt
	@touch $@
