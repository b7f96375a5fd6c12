# Each target sets up what it needs by itself, and nothing twice: a virtual environment in .venv and
# the Rust cores built into it. Needs Python 3.11 or later; cargo and a C compiler for the Rust core.
# `make PYTHON=python3.12 test` chooses the Python; `make test ARGS="-k gate"` passes arguments on.

PYTHON ?= python3
ARGS ?=
SECONDS ?= 60

BIN := .venv/bin
VENV_READY := .venv/.made
CARGO := $(shell command -v cargo 2>/dev/null)
INSTALLED := .venv/.installed$(if $(CARGO),-with-core)
CORES := engine/core bridge/proxy/core
CORE_FILES := $(foreach core,$(CORES),$(wildcard $(core)/*.toml $(core)/*/*.toml $(core)/src/*.rs $(core)/src/*/*.rs $(core)/*/src/*.rs))

.PHONY: help demo test check bench fuzz
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## the whole story with real processes, in two to three minutes
	@$(BIN)/railswitch demo $(ARGS)

test: $(INSTALLED) ## all tests, with real servers
	@$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED) ## linters, formatters, types, and the Rust cores' own tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
ifeq ($(CARGO),)
	@echo "check: cargo is not installed, so the Rust cores were not checked"
else
	cargo fmt --manifest-path engine/core/fuzz/Cargo.toml --check
	for core in $(CORES); do \
		cargo fmt --manifest-path $$core/Cargo.toml --all --check && \
		PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --manifest-path $$core/Cargo.toml \
			--workspace --all-targets -- -D warnings && \
		cargo test --quiet --manifest-path $$core/Cargo.toml || exit 1; \
	done
endif

fuzz: $(INSTALLED) ## look for bytes that do harm, for SECONDS=60 seconds
	@$(BIN)/python tests/engine/fuzzing.py --seconds $(SECONDS) $(ARGS)

bench: $(INSTALLED) ## measure the parts on this machine, and put the figures into docs/performance.md
	@$(BIN)/railswitch bench core engine recovery --rate 1000000 --seconds 60 --ladder \
		--write docs/performance.md $(ARGS)
	@$(BIN)/railswitch bench proxy pipeline --write docs/performance.md $(ARGS)

$(VENV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "railswitch needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -m venv .venv || \
		{ echo "no virtual environment: install the venv module of $(PYTHON) (python3-venv)" >&2; exit 1; }
	@touch $@

$(INSTALLED): pyproject.toml $(CORE_FILES) | $(VENV_READY)
	@echo "Installing into .venv (once; some two minutes, most of it the Rust cores) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -c 'import engine._core, bridge.proxy._core' 2>/dev/null || \
		$(MAKE) --no-print-directory without-core
	@touch $@

.PHONY: without-core
without-core:
ifeq ($(CARGO),)
	@echo "cargo is not installed: installed without the Rust cores. The reference book and the asyncio"
	@echo "proxy do their work, slowly."
else
	@echo "A Rust core could not be built; this is why:" >&2
	for core in $(CORES); do cargo build --release --manifest-path $$core/Cargo.toml --workspace || exit 1; done
	@echo "cargo builds it, but the package did not take it in: see pip install -v -e ." >&2; exit 1
endif
