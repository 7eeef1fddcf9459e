# Needs Python 3.11 or newer, git and make. Everything else is installed into .venv, from hash-locked files.
#
#   make run     start the gateway with gateway.toml (CONFIG=other.toml, ARGS="--port 9000")
#   make test    run the tests, three at a time (PROCESSES=1), or some of them (ARGS="tests/test_config.py -k secret")
#   make test-clients  drive the real clients (openai, anthropic, Claude Code, Codex, …); wants node and npm
#   make check   lint, formatting, types
#   make bench   CPU per request beside a textbook proxy (ARGS="--quick")
#   make docs    write the generated pages of docs/ anew
#   make lock    resolve setup.cfg anew (ARGS="--upgrade-package aiohttp", or "--upgrade" for all)
#   make clean   remove what the above made

CONFIG ?= gateway.toml
ARGS ?=
PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SHELL := /bin/bash

# The first interpreter that runs and is new enough; a version manager's shim may exist and not run.
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	"$$p" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

.PHONY: run test clients test-clients check bench docs lock clean

run: $(VENV)/.core
	exec $(BIN)/gateway serve --config $(CONFIG) $(ARGS)

# Most tests wait most of the time, so several run at once. A file's tests stay together and share its servers; the files
# keep their order, in which the long ones are not the last. A process that a hanging test ended is not started again.
PARALLEL := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Tests marked "alone" measure the machine along with the gateway: they follow, with nothing beside them.
test: $(VENV)/.dev
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -m "not alone" $(PARALLEL)
	$(BIN)/python -m pytest -m alone $$(grep -rl --include="test_*.py" mark.alone tests)
else
	$(BIN)/python -m pytest $(ARGS)
endif

CLIENTS := $(patsubst tests/clients/python/%.txt,$(VENV)/clients/%/.made,$(wildcard tests/clients/python/*.txt))
JS := tests/clients/js

clients: $(CLIENTS) $(JS)/node_modules/.made

test-clients: $(VENV)/.dev clients
	$(BIN)/python -m pytest tests/clients $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

# A stamp per lock file: an unchanged one costs nothing the second time.
$(VENV)/.core: requirements.lock requirements-build.lock setup.cfg pyproject.toml $(VENV)/.made
	$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.core
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module found; set PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is not Python 3.11 or newer with the venv module." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

docs: $(VENV)/.core
	$(BIN)/python -m docs.dialects

# Clients differ in what they pin: a virtual environment for each group that goes together.
$(VENV)/clients/%/.made: tests/clients/python/%.txt $(VENV)/.made
	"$(PYTHON)" -m venv --without-pip $(@D)
	$(PIP) --python $(@D)/bin/python install --no-deps -r $<
	@touch $@

# Without npm the JavaScript clients' tests are skipped.
$(JS)/node_modules/.made: $(JS)/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix $(JS) --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "npm is not installed" >&2; fi

# Run with the oldest Python we support: what newer ones leave out is then still locked.
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(ARGS)

# What operators can want: everything but the tools of tests.
EXTRAS := workers redis postgres cost jwt bedrock vertex import

lock: $(VENV)/.made
	test -x $(VENV)/lock/bin/pip-compile || { "$(PYTHON)" -m venv $(VENV)/lock && \
		$(VENV)/lock/bin/python -m pip --disable-pip-version-check --quiet install pip-tools==7.6.2; }
	$(COMPILE) --output-file requirements.lock setup.cfg
	$(COMPILE) $(addprefix --extra ,$(EXTRAS)) --constraint requirements.lock --output-file requirements-all.lock setup.cfg
	$(COMPILE) --only-build-deps --build-deps-for wheel --output-file requirements-build.lock pyproject.toml
	$(COMPILE) --extra test --extra lint --extra workers --extra vertex --constraint requirements.lock --output-file requirements-dev.lock setup.cfg

clean:
	rm -rf $(VENV) $(JS)/node_modules build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find gateway plugins tests bench -name __pycache__ -prune -exec rm -rf {} +
