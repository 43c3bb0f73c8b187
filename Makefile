# Every command for working on the project. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
UV_LOCKS := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-header pyproject.toml
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
UI_PORT ?= 3000

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-e2e test-long fmt lint types dev report bench screenshots lock check clean same-python

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.dev ## Build .venv with everything from the hash-pinned locks

demo: .venv/.runtime ## See daily costs of a made-up company; no account needed
	@$(BIN)/sessions-pipeline demo

test: .venv/.dev ## Run the default test suite, in under five minutes
	@$(PYTEST) -m "not long" --ignore sessions_pipeline_tests/end_to_end sessions_pipeline_tests

test-e2e: .venv/.dev ## Run the end-to-end tests: processes, browser, image, readers
	@$(PYTEST) -m "not long" sessions_pipeline_tests/end_to_end

test-long: .venv/.dev ## Run every test, before a release: simulations and crashes
	@$(PYTEST) sessions_pipeline_tests

fmt: .venv/.dev ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: .venv/.dev ## Check style, import rules and dependencies
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/deptry sessions_pipeline

types: .venv/.dev ## Check types
	@$(BIN)/mypy

dev: .venv/.runtime ## Run Dagster; SANDBOX=1: on the demo's data; UI_PORT=3001
	@exec $(BIN)/sessions-pipeline ui --port $(UI_PORT)$(if $(SANDBOX), --demo)

report: .venv/.runtime ## Write the HTML cost report for the data root
	@$(BIN)/sessions-pipeline report

bench: .venv/.dev ## Compare with other tools, in minutes; FULL=1 takes hours
	@$(BIN)/python benchmarks/bench.py $(if $(FULL),--full --write)

screenshots: .venv/.dev ## Take the README's screenshots, of the demo's data
	@$(BIN)/python docs/screenshots.py

lock: .venv/.uv ## Update the locks from pyproject.toml
	@$(UV_LOCKS) --group build --extra deploy --extra notify -o requirements-deploy.lock
	@$(UV_LOCKS) --group build -c requirements-deploy.lock -o requirements.lock
	@$(UV_LOCKS) --group build --resolution lowest-direct -o requirements-oldest.lock
	@$(UV_LOCKS) --group dev --extra deploy --extra notify -c requirements-deploy.lock -o requirements-dev.lock
	@$(UV_LOCKS:pyproject.toml=) --group old-readers -o requirements-old-readers.lock
	@$(UV_LOCKS:pyproject.toml=) --group readers -o requirements-readers.lock

check: lint types test ## Check style, types and rules, and run the default suite

clean: ## Remove .venv, caches and the demo's data
	@rm -rf .venv .dagster data/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv stays as it is, so if PYTHON is given and is another one, that must not be ignored.
same-python:
	@[ ! -x $(BIN)/python ] || [ "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" ] || \
	  { echo ".venv was built with $$($(BIN)/python -V), not with $(PYTHON); to build it again: rm -rf .venv" >&2; exit 1; }

# PIP_USER=0 because pip's configuration may ask for `--user` installs, which pip refuses inside a virtual environment.
.venv/.uv: requirements-uv.lock | $(if $(filter file,$(origin PYTHON)),,same-python)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv
	@PIP_USER=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

.venv/.runtime: .venv/.uv requirements.lock pyproject.toml
	@$(BIN)/python tools/install.py requirements.lock
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@$(BIN)/python tools/install.py requirements-dev.lock
	@touch $@
