# Everything a developer or CI runs. `make` alone lists the targets; each sets up what it needs, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without byte code, importing Airflow takes longer than its own time-outs; some images forbid writing it.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH
unexport PYTHONHOME

VENV ?= .venv
BIN := $(VENV)/bin
PORT ?=
# Two trials at a time and Airflow's own processes fill a small machine.
JOBS ?= 2
PYTEST_ARGS ?=
SOURCES := airflow_hptuning tests benchmarks dags tools
LOCKED := setup.cfg pyproject.toml tools/venv.sh requirements/build.txt
export VENV

##@ Use
.PHONY: quickstart
quickstart: $(VENV)/.runtime  ## start Airflow here, run the example sweeps, print their leaderboards (PORT=8080)
	@$(BIN)/python -m tools.quickstart start $(if $(PORT),--port $(PORT))

.PHONY: status
status: $(VENV)/.runtime  ## say whether the quickstart's Airflow is running, and where
	@$(BIN)/python -m tools.quickstart status

.PHONY: stop
stop:  ## stop exactly the processes that the quickstart started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tools.quickstart stop; else echo "Nothing is running."; fi

##@ Develop
.PHONY: venv
venv: $(VENV)/.dev  ## make the virtual environment with all locked packages

.PHONY: test
test: $(VENV)/.dev  ## run all tests that need no Kubernetes (PYTEST_ARGS="-k name")
	$(BIN)/python -m pytest -m "not e2e" --numprocesses $(JOBS) --dist loadfile $(PYTEST_ARGS)

.PHONY: test-e2e
test-e2e: $(VENV)/.dev  ## run the tests that need a Kubernetes cluster (KUBECONFIG)
	@: "$${KUBECONFIG:?set KUBECONFIG to the cluster that the tests may use}"
	$(BIN)/python -m pytest -m e2e $(PYTEST_ARGS)

.PHONY: check
check: lint types contracts scripts docs wheel  ## run every check that is no test

.PHONY: lint
lint: $(VENV)/.dev  ## formatting and style
	$(BIN)/ruff format --check --diff $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

.PHONY: types
types: $(VENV)/.dev  ## type check, strict
	$(BIN)/mypy $(SOURCES)

.PHONY: contracts
contracts: $(VENV)/.dev  ## the layers of the architecture (import-linter)
	$(BIN)/lint-imports

.PHONY: docs
docs: $(VENV)/.dev  ## build the documentation; fails on a broken link or an outdated reference page
	$(BIN)/python -m tools.make_reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: docs-serve
docs-serve: $(VENV)/.dev  ## read the documentation in a browser while writing it
	$(BIN)/mkdocs serve

.PHONY: reference
reference: $(VENV)/.dev  ## write the generated reference page of the polyaxonfile anew
	$(BIN)/python -m tools.make_reference

.PHONY: scripts
scripts: $(VENV)/.dev  ## lint the shell scripts and the Dockerfiles
	$(BIN)/shellcheck .ci/run tools/*.sh docker/kubernetes/*.sh
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint docker/*Dockerfile && echo "docker/*Dockerfile: hadolint found nothing"; \
	else echo "docker/*Dockerfile: not checked, hadolint has no wheel for this machine"; fi

.PHONY: wheel
wheel: $(VENV)/.dev  ## build the wheel and check what is in it
	$(BIN)/python -m tools.check_wheel

.PHONY: format
format: $(VENV)/.dev  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: lock
lock: $(VENV)/.dev  ## lock the newest versions of all packages (requirements/*.txt)
	tools/lock.sh

.PHONY: clean
clean: stop  ## remove what is built or cached, and the quickstart's database; keeps the virtual environment
	rm -rf .quickstart site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find airflow_hptuning tests tools dags -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z0-9-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The stamps: made once, and again when the locks or the package's metadata change.
$(VENV)/.runtime: $(LOCKED) requirements/runtime.txt
	@tools/venv.sh runtime
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@tools/venv.sh dev
	@touch $@
