# The two commands of the README, and those of whoever works on headrace. Only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= headrace-demo

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[excel,postgres]'
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(VENV)/.user ## set everything up and run the main job on real data
	@rm -rf $(DEMO)
	$(BIN)/headrace demo --dir $(DEMO)

faults: $(VENV)/.dev ## try to break every source, write and destination; half an hour
	$(BIN)/python -m pytest tests/faults --faults=full -n 2 --dist worksteal --durations 12

# tests start many processes: none of them compiles headrace anew, whatever the user has set
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev lint ## set everything up and run all checks and tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev ## style, types and floors
	$(BIN)/ruff check src tests scripts benchmarks
	$(BIN)/ruff format --check src tests scripts benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel-test: $(VENV)/.dev ## build the wheel and run the demo from it in a clean environment
	rm -rf dist build/wheel-test
	$(BIN)/python -m build --quiet --wheel
	$(PYTHON) -m venv build/wheel-test
	build/wheel-test/bin/python -m pip install --quiet dist/headrace-*.whl
	build/wheel-test/bin/headrace demo --dir build/wheel-test/demo
	build/wheel-test/bin/headrace run build/wheel-test/demo --json | build/wheel-test/bin/python -c \
	  "import json, sys; runs = json.load(sys.stdin)['runs']; assert [r['status'] for r in runs] == ['nothing_new'] * 3, runs"

reference: $(VENV)/.dev ## write docs/reference.md and the tables of docs/guarantees.md anew
	$(BIN)/python -m headrace.cli.reference > docs/reference.md
	$(BIN)/python -m headrace.cli.guarantees docs/guarantees.md

build/peers/.made: pyproject.toml
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --upgrade pip
	build/peers/bin/python -m pip install --quiet --group bench-peers
	@touch $@

bench: $(VENV)/.user build/peers/.made ## race headrace against scripts by hand and its peers (SF=1, ROUNDS=7)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/race.py

bench-growth: $(VENV)/.user ## see how cost grows with what is loaded, seen, remembered and checked
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/growth.py

bench-postgres: $(VENV)/.dev ## race PostgreSQL in and out against its floor and its peers (SF=1, ROUNDS=7)
	$(BIN)/python -m pip install --quiet --group bench-postgres
	$(BIN)/python benchmarks/postgres/race.py

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help demo test faults lint wheel-test reference bench bench-growth bench-postgres clean
