# Everything a person does with a clone. `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup up down status test test-quick lint format bench versus access chaos rounds payments browser attacks abandoned failover foreign shape protos
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.installed
SOURCES := authz meter tollkeeper tests $(wildcard attacks bench chaos)
UP_OPTIONS ?=
BENCH_OPTIONS ?=
CHAOS_OPTIONS ?=
ABANDONED_OPTIONS ?=
FAILOVER_OPTIONS ?=
ATTACKS_OPTIONS ?=
PAYMENTS_OPTIONS ?=
TEST_OPTIONS ?=
FOREIGN_OPTIONS ?=
SHAPE_OPTIONS ?=

help:
	@echo "Tollkeeper: a prepaid gateway for large language models"
	@echo
	@echo "  make setup      install everything into .venv (quick when done)"
	@echo "  make up         start the whole system here; Ctrl-C ends it"
	@echo "  make status     what runs, and whether it is healthy"
	@echo "  make down       end a system started with: make up UP_OPTIONS=--detach"
	@echo "  make test       all checks: style, types, layers, tests"
	@echo "  make test-quick style, types, layers and unit tests: for every save"
	@echo "  make lint       style, types and layers only"
	@echo "  make format     put the style right"
	@echo "  make bench      measure; rows go to bench/latest.json"
	@echo "  make versus     compare the speed with another clone: make versus CLONE=../other"
	@echo "  make access     measure how soon revocation shows and how exactly limits hold"
	@echo "  make chaos      attack a whole stack, then look for a missing pico-dollar"
	@echo "  make attacks    flood, withhold, lock; and measure what another user notices"
	@echo "  make payments   payments under faults, then credit against Stripe's books"
	@echo "  make browser    buys credit in a real chromium, on a stack of its own"
	@echo "  make rounds     many at once against a balance for a few, 1,000 times"
	@echo "  make abandoned  charge against bill of 10,000 requests that nobody reads to the end"
	@echo "  make failover   a route over three providers that fail at random, and who was paid"
	@echo "  make foreign    clients, upstreams and agents of others, unmodified; needs PyPI and npm"
	@echo "  make shape      figures about the code: helpers, names, docstrings, folders"
	@echo "  make protos     regenerate the protobuf modules"
	@echo
	@echo "Begin with: make up"

setup: $(STAMP)
	@echo "Set up in $(VENV). Next: make up"

# The stamp is younger than what it was made from, or the work is done again.
$(STAMP): pyproject.toml uv.lock tests/node/package-lock.json .ci/setup
	@.ci/setup $(VENV) $(UV_VERSION)
	@touch $(STAMP)

up: $(STAMP)
	@$(BIN)/tollkeeper up $(UP_OPTIONS)

down: $(STAMP)
	@$(BIN)/tollkeeper down
	@echo "Next: make up"

# The command ends with 0 healthy, 1 not, 3 not running; make turns both of the others into 2.
status: $(STAMP)
	@$(BIN)/tollkeeper status

lint: $(STAMP)
	@echo "Style: ruff check, ruff format"
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@echo "Types: mypy --strict"
	@$(BIN)/mypy $(addprefix -p ,$(SOURCES))
	@echo "Layers: import-linter"
	@$(BIN)/lint-imports --no-logo
	@echo "Clean. Next: make test"

format: $(STAMP)
	@echo "Putting the style right"
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)
	@echo "Done. Next: make test"

# Tests mostly wait, for processes that start and for settlements, so more workers than processors
# help. tests/schedule.py says which tests share a worker.
WORKERS ?= 6

test: lint
	@echo "Tests: $(WORKERS) workers; failures are explained at the end"
	@$(BIN)/pytest -n $(WORKERS) $(TEST_OPTIONS)

# For every save: no server is started but a Postgres that says whether its settings hold.
test-quick: lint
	@$(BIN)/pytest -n 3 -q tests/unit $(TEST_OPTIONS)

bench: $(STAMP)
	@echo "Measuring; the machine should be idle"
	@$(BIN)/python -m bench $(BENCH_OPTIONS)
ifneq (,$(findstring --scale,$(BENCH_OPTIONS)))
	@$(BIN)/python -m bench.chart
	@echo "The rows are in bench/scale.json. Next: compare them with docs/benchmarks.md"
else
	@$(BIN)/python -m bench.first_byte
	@echo "The rows are in bench/latest.json. Next: compare them with docs/benchmarks.md"
endif

versus: $(STAMP)
	@$(BIN)/python -m bench.versus $(CLONE)

access: $(STAMP)
	@$(BIN)/python -m bench.access

chaos: $(STAMP)
	@$(BIN)/python -m chaos $(CHAOS_OPTIONS)
	@echo "The figures are in chaos/latest.json. Next: chaos/README.md says how to read them"

attacks: $(STAMP)
	@$(BIN)/python -m attacks $(ATTACKS_OPTIONS)

payments: $(STAMP)
	@$(BIN)/python -m chaos.payments $(PAYMENTS_OPTIONS)
	@echo "Done. Next: docs/payments.md"

browser: $(STAMP)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  command -v google-chrome >/dev/null || \
	  { echo "No chromium on this machine. Install it, as by: apt-get install chromium"; exit 1; }
	@$(BIN)/pytest -q tests/browser/buying.py
	@echo "Done. Next: docs/payments.md"

rounds: $(STAMP)
	@$(BIN)/python -m chaos.rounds
	@echo "Done. Next: make chaos"

abandoned: $(STAMP)
	@$(BIN)/python -m chaos.abandoned $(ABANDONED_OPTIONS)
	@echo "Done. Next: chaos/README.md says how to read the table"

failover: $(STAMP)
	@$(BIN)/python -m chaos.failover $(FAILOVER_OPTIONS)
	@echo "Done. Next: chaos/README.md says what is checked"

foreign: $(STAMP)
	@$(BIN)/python -m tests.foreign $(FOREIGN_OPTIONS)
	@echo "Done. Next: docs/clients.md has the tables of this run"

shape: $(STAMP)
	@$(BIN)/python -m bench.shape $(SHAPE_OPTIONS)

protos: $(STAMP)
	@echo "Generating protobuf modules from authz/protos and meter/protos"
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. \
		authz/protos/ext_authz.proto meter/protos/access_log.proto
	@echo "Done. Next: make test"
