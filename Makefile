# Needs Python 3.11 and make. Every target installs the environment first; a second call installs nothing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
READY := $(VENV)/.ready

.PHONY: demo ui cluster cluster-stop test check lint types bench lock clean help

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/ /'

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.lock
	touch $@

demo: $(READY)   ## sweep m, k, auxiliary kind and frozen-layer budget on the built-in digits
	$(BIN)/python -m jobs.sweep jobs/studies/demo.yaml

ui: $(READY)     ## browse the sweeps in MLflow: prints the links
	$(BIN)/python -m jobs.ui

cluster: $(READY) ## start a Ray head, 3 worker nodes, MLflow and an S3 test server on this machine
	cluster/one-host.sh start

cluster-stop:    ## stop the processes that `make cluster` started
	cluster/one-host.sh stop

test: $(READY)   ## run every test that needs no accelerator and no network, on every core
	env --unset=PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(READY)   ## run ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## run mypy
	$(BIN)/mypy orchestrator jobs tests benchmarks

check: lint      ## run lint, types and tests, as CI does; types beside the tests
	@$(MAKE) --no-print-directory --jobs=2 types test

bench: $(READY)  ## measure training against plain PyTorch, budgets, reading against boto3, a sweep's overhead and size
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.inverter
	$(BIN)/python -m benchmarks.budgets
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.workers

lock:            ## re-resolve requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock

clean:           ## delete runs/: the demo's and all local results
	rm -rf runs
