# One target for each thing a person does here. `make` alone lists them.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
# Touched after a complete install, so that an interrupted one is done again.
INSTALLED := $(VENV)/installed

# A benchmark is a script; what scripts share starts with an underscore.
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

# An installation of its own: in .venv the sources are what runs, and none of them is compiled.
COMPILED := .venv-compiled

.PHONY: help run test check bench compiled test-compiled fuzz simulate chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED) ## start three nodes on loopback, ports 8001 to 8003; Ctrl-C ends them
	$(BIN)/kvcli local 3

test: $(INSTALLED) ## run all tests
	$(BIN)/trial tests

check: $(INSTALLED) ## lint, format, types and the direction of imports; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED) ## run every benchmark
	@set -e; for script in $(BENCHMARKS); do \
		echo "== $$script"; \
		$(BIN)/python "$$script"; \
	done

compiled: ## install it compiled, in .venv-compiled: two minutes and a C compiler
	rm -rf $(COMPILED) build
	$(PYTHON) -m venv $(COMPILED)
	KVTWIST_COMPILE=1 $(COMPILED)/bin/pip install --quiet --disable-pip-version-check '.[test]'
	rm -rf build

# A copy: beside the sources, they would find those first.
test-compiled: ## run tests of what `make compiled` has made
	rm -rf $(COMPILED)/tests $(COMPILED)/examples $(COMPILED)/README.md
	cp -r tests examples README.md $(COMPILED)/
	cd $(COMPILED) && PYTHONPATH=. bin/python -m tests.compiled

fuzz: $(INSTALLED) ## feed the wire with damaged bytes for ten minutes
	$(BIN)/python -m tests.fuzz.wire

# How many runs; one goes on where it was stopped when RESUME names a file.
SEEDS ?= 1000
NODE_SEEDS ?= 500
simulate: $(INSTALLED) ## run SEEDS simulations of a Raft group, NODE_SEEDS of whole clusters
	$(BIN)/python -m tests.sim --seeds 0:$(SEEDS) $(if $(RESUME),--resume $(RESUME))
	$(BIN)/python -m tests.simnodes --seeds 0:$(NODE_SEEDS)

# How long, and which schedule of faults: another one each time without SEED.
SECONDS ?= 180
chaos: $(INSTALLED) ## kill, freeze, restart and cut off real nodes under load; SECONDS, SEED
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# The data of nodes started here (*.kvtwist/) stays: it is not ours to delete.
clean: ## remove what the other targets made, the virtual environment too
	rm -rf $(VENV) $(COMPILED) build dist *.egg-info _trial_temp* .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -f twisted/plugins/dropin.cache
	find kvtwist twisted tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Editable, so that only a change of the dependencies asks for another install.
$(INSTALLED): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,test]'
	@touch $@
