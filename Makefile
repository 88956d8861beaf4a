# Thin by intent: every target is a command that can be typed by hand. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

MINUTES ?= 30

# Where it is set, every process compiles every module anew, and pytest rewrites every assertion in each of its workers.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check dashboards chaos faults load-stress soak bench lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.runtime: requirements.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<=(3,13) else "Gaia needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(PIP) install -q --require-hashes -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e client -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(PIP) install -q --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.debian: $(VENV)/.dev
	$(BIN)/python -m tests.support.debian
	@touch $@

setup: $(VENV)/.runtime ## virtual environment, locked dependencies, Chromium
	$(BIN)/gaia chromium --install

demo: setup ## a cluster, a small real workload over all five subsystems, a table of what came back
	$(BIN)/gaia demo

up: setup ## the cluster on this machine, until Ctrl-C
	$(BIN)/gaia up

test: setup $(VENV)/.dev $(VENV)/.debian ## every test: real Valkey, workers, Chromium; no internet
	$(BIN)/python -m pytest

check: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dashboards: $(VENV)/.dev ## write config/grafana/dashboards anew
	$(BIN)/python -m config.grafana

chaos: setup $(VENV)/.dev ## 20 000 calls under kills, cuts, restarts and the rest, beside stock Celery: what was lost (quarter of an hour)
	$(BIN)/python -m tests.chaos --stock

load-stress: setup $(VENV)/.dev ## 1000 real operations of all subsystems in flight at once, and what each part takes (three minutes)
	$(BIN)/python -m tests.load

faults: setup $(VENV)/.dev $(VENV)/.debian ## a fault after another in a real cluster: which alerts fire, and when (25 minutes, 4 GB of memory)
	$(BIN)/python -m tests.faults

soak: setup $(VENV)/.dev ## a steady load on a real cluster, and whether anything grows with the calls (MINUTES=30, ONLY=api,files)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(ONLY),--only $(ONLY))

bench: setup ## the queue beside its peers, each in its own environment (half an hour, on a machine that does nothing else)
	$(BIN)/python benchmarks/queue/run.py

lock: ## renew both lock files (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-package gaia-client --no-annotate --no-header --group build -o requirements.lock pyproject.toml
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-package gaia-client --no-annotate --no-header --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean: ## remove the virtual environment and everything that was generated
	rm -rf $(VENV) .gaia .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
