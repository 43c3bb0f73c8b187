# Everything a person types. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-header pyproject.toml
DEMO_HOME := $(CURDIR)/data/demo/_dagster
HOME_DIR := $(or $(DAGSTER_HOME),$(CURDIR)/.dagster)
SANDBOX_PORT ?= 8123

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-long fmt lint types dev report bench screenshots lock check clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.dev ## Build .venv with everything from the hash-pinned locks

demo: .venv/.runtime ## See daily costs: thirty days of a made-up company, no account needed
	@mkdir -p $(DEMO_HOME) && cp dagster.yaml $(DEMO_HOME)/dagster.yaml
	@DAGSTER_HOME=$(DEMO_HOME) $(BIN)/sessions-pipeline demo

test: .venv/.dev ## Run the default test suite
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long"

test-long: .venv/.dev ## Run the long suite too: thousands of schedules, a hundred crashes
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

fmt: .venv/.dev ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: .venv/.dev ## Check style, import rules and dependencies
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/deptry sessions_pipeline

types: .venv/.dev ## Check types
	@$(BIN)/mypy

dev: .venv/.runtime ## Open the Dagster UI with the daemon; SANDBOX=1 shows it on the demo's data
ifdef SANDBOX
	@mkdir -p $(DEMO_HOME) && cp dagster.yaml $(DEMO_HOME)/dagster.yaml
	@trap 'kill 0' EXIT INT TERM; \
	$(BIN)/sessions-pipeline sandbox --port $(SANDBOX_PORT) & \
	env -u LANGSMITH_BEARER_TOKEN -u LANGSMITH_WORKSPACE_ID -u SESSIONS_PIPELINE_QUERY \
	  LANGSMITH_ENDPOINT=http://127.0.0.1:$(SANDBOX_PORT) LANGSMITH_API_KEY=sandbox-key \
	  SESSIONS_PIPELINE_DATA_ROOT=$(CURDIR)/data/demo DAGSTER_HOME=$(DEMO_HOME) \
	  $(BIN)/dagster dev -w workspace.yaml
else
	@$(BIN)/sessions-pipeline doctor --quick
	@mkdir -p $(HOME_DIR) && (test -e $(HOME_DIR)/dagster.yaml || cp dagster.yaml $(HOME_DIR)/dagster.yaml)
	@DAGSTER_HOME=$(HOME_DIR) $(BIN)/dagster dev -w workspace.yaml
endif

report: .venv/.runtime ## Write the HTML cost report of the data root
	@$(BIN)/sessions-pipeline report

bench: .venv/.dev ## Measure against other tools, in minutes; FULL=1 takes hours
	@$(BIN)/python benchmarks/run.py $(if $(FULL),--full --write)

screenshots: .venv/.dev ## Take the README's pictures of the UI from the demo's data
	@$(BIN)/python docs/screenshots.py

lock: .venv/.uv ## Compile the locks again from pyproject.toml
	@$(COMPILE) --group build --extra deploy -o requirements-deploy.lock
	@$(COMPILE) --group build -c requirements-deploy.lock -o requirements.lock
	@$(COMPILE) --group dev --extra deploy -c requirements-deploy.lock -o requirements-dev.lock

check: lint types test ## Everything that CI runs

clean: ## Remove .venv, caches and the demo's data
	@rm -rf .venv .dagster data/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.uv: requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

.venv/.runtime: .venv/.uv requirements.lock pyproject.toml
	@$(UV) --require-hashes -r requirements.lock
	@$(UV) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@$(UV) --require-hashes -r requirements-dev.lock
	@touch $@
