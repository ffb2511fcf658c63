# Two commands to begin with: `make demo`, `make test`. Each sets itself up (in .venv) the first time.
#   make demo ARGS="--once --json"     a real application's jobs, on a Postgres that comes along
#   make test                          the quick tests, 8 minutes on two processors; ARGS="tests/plans -x" runs what it names
#   make test-all                      all tests, also with whole workers, a browser and faults; installs what they need
#   make coverage                      all tests, and which lines and branches of jobq they reach, in all its processes
#   make chaos                         faults by the minute, at random: SEED=7 repeats a run, ARGS="tests/chaos -k proxy" narrows it
#   make mutants                       known faults put back, one at a time: each must be noticed; ARGS="C3" narrows
#   make check                         style, types and layers
#   make bench                         measurements, ours and the peers'; ARGS="drain latency --peers pgqueuer --quick" narrows
#   make bench-page                    the status page on 5 million jobs, minutes to fill; ARGS="--scale 0.1 --keep" is shorter
#   make bench-flow                    order, limits, rates and turns while workers are killed; ARGS="order --seeds 10" narrows
#   make reliability ARGS="poison"     one promise at full size, under faults and load; ARGS=--help lists them
#   make recovery                      seconds until a worker is back from each fault; ARGS="--rounds 1 worker" for one
#   make test-matrix                   the tests that touch SQL, on PostgreSQL 14 to 18
#   make clean | distclean             remove what was made | and the virtual environment
# uv is used where it is present, else venv and pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
PINS := requirements/test.txt
CPUS := $(shell nproc 2>/dev/null || echo 2)
# Many a test waits for a timeout or a lease: three of them keep two processors busy.
JOBS ?= $(shell echo $$((($(CPUS) * 3 + 1) / 2)))
ARGS ?=

.PHONY: help demo test test-all coverage chaos mutants check lint format types imports bench bench-page bench-flow reliability recovery test-matrix pins clean distclean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(VENV)/.ready-demo
	@$(BIN)/jobq demo $(ARGS)

test: $(VENV)/.ready-dev
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --suite=quick $(ARGS)

test-all: $(VENV)/.ready-dev
	@requirements/programs >&2
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --require-programs $(ARGS)

coverage: $(VENV)/.ready-dev
	@requirements/programs >&2
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --cov --cov-report=term:skip-covered $(ARGS)

chaos: $(VENV)/.ready-dev
	@$(BIN)/python -m pytest -n $(CPUS) --dist worksteal -rA --chaos-long \
	  --chaos-seed $${SEED:-$$RANDOM} $(if $(ARGS),$(ARGS),tests/chaos)

mutants: $(VENV)/.ready-dev
	@$(BIN)/python -m tests.mutants --jobs $(JOBS) $(ARGS)

check: $(VENV)/.ready-dev
	@failed=; for part in lint types imports; do $(MAKE) $$part || failed="$$failed $$part"; done; \
	[ -z "$$failed" ] || { echo "make check failed in:$$failed"; exit 1; }

lint: $(VENV)/.ready-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.ready-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.ready-dev
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/.ready-dev
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.ready-bench
	@$(BIN)/python -m bench $(ARGS)

bench-page: $(VENV)/.ready-dev
	@$(BIN)/python -m bench.page $(ARGS)

bench-flow: $(VENV)/.ready-dev
	@$(BIN)/python -m bench.flow $(ARGS)

reliability: $(VENV)/.ready-dev
	@$(BIN)/python -m bench.reliability $(if $(ARGS),$(ARGS),--help)

recovery: $(VENV)/.ready-dev
	@$(BIN)/python -m bench.recovery $(ARGS)

test-matrix: $(VENV)/.ready-dev
	@$(BIN)/python -m tests.matrix $(ARGS)

# The versions now installed become the pins.
pins: $(VENV)/.ready-dev
	@{ head -n 1 $(PINS); $(BIN)/python -m pip freeze --exclude-editable | grep '==' | grep -v '^jobq==' | sort -f; } > $(PINS).new
	@mv $(PINS).new $(PINS)

# Set-up speaks on stderr: stdout belongs to the command.
$(VENV)/.ready-demo: pyproject.toml $(PINS)
	@requirements/setup $(VENV) $(PINS) '.[demo]' >&2
	@touch $@

$(VENV)/.ready-dev: pyproject.toml $(PINS)
	@requirements/setup $(VENV) $(PINS) '.[dev]' >&2
	@touch $(VENV)/.ready-demo $@

$(VENV)/.ready-bench: $(VENV)/.ready-dev
	@requirements/setup $(VENV) $(PINS) '.[dev,bench]' >&2
	@touch $@

clean:
	@for link in .jobq/server .jobq/*/server; do [ ! -L "$$link" ] || rm -rf "$$(readlink "$$link")"; done
	@rm -rf .jobq build dist *.egg-info htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	@rm -rf $(VENV) .bench
