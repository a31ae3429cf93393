# `make` lists what there is; each target's line is its own help.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo run check format lint imports types test test-fast lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Baton needs Python 3.11 or newer; set PYTHON=")'
	@echo "Installing Baton's libraries, as $< pins them, into $(VENV); a minute or two, this once ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## watch leads walk the whole way, in one process, nothing to set up
	@$(BIN)/baton demo

run: $(READY) ## the same stack on http://127.0.0.1:8080, its data in ./data
	@$(BIN)/baton up

check: format lint imports types test ## the whole gate: what CI runs

format: $(READY) ## fail if a file is not formatted
	@$(BIN)/ruff format --check --quiet . && echo "format: ok"

lint: $(READY) ## ruff
	@$(BIN)/ruff check --quiet . && echo "lint: ok"

imports: $(READY) ## the layering: services apart, pure modules pure
	@$(BIN)/lint-imports

types: $(READY) ## mypy --strict
	@$(BIN)/mypy

test: $(READY) ## every test; fetches Kafka, finds PostgreSQL, and says what it skipped
	@$(BIN)/python deploy/dev/kafka fetch >/dev/null || true # what is missing, the tests say
	@$(BIN)/pytest -q

test-fast: $(READY) ## what needs no server, under 30 seconds
	@$(BIN)/pytest -q -m "not kafka and not postgres and not slow"

LOCK := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
lock: $(READY) ## resolve the dependencies anew, of this tree and of the image (needs uv)
	$(LOCK) --extra dev pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock pyproject.toml -o deploy/requirements.lock
	grep -oE 'hatchling==[0-9.]+' pyproject.toml | sort -u | $(LOCK) -c requirements.lock - -o deploy/build.lock

clean: ## remove the virtual environment and caches, not the data
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
