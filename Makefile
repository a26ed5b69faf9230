# The verbs of the day. Each target sets up what it needs in .venv, once, and again when pyproject.toml changes:
# a fresh clone needs Python 3.11 or newer and make, nothing else.

# The first Python that really runs: a shim of a version manager may stand on the PATH and print an error.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)
VENV ?= .venv
# More for pytest on one run: make test ARGS="-k header"
ARGS ?=
# How many processes run the tests: more than there are cores keep these busy while tests wait for programs.
WORKERS ?= 4

# A folder, unless ARGS names files of its own.
within = $(if $(filter tests/%,$(ARGS)),,$(1))

# What `make lowest` installs and runs.
# All extras but `proxy`, which needs an environment of its own; the others bring `recovery`.
EXTRAS = $(shell $(BIN)/python -c 'import tomllib; \
	found = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*sorted(found.keys() - {"proxy", "recovery"}), sep=",")')
LOWEST = $(filter-out tests/test_docs%.py tests/test_house.py tests/test_postgres.py,$(wildcard tests/test_*.py)) tests/clientstore/test_libraries.py \
	tests/clientstore/test_clients_websockets.py tests/middleware/test_asgi.py tests/middleware/test_wsgi.py tests/middleware/collector/storage/conformance tests/cli/test_help.py

BIN = $(VENV)/bin
STAMPS = $(VENV)/stamps
# Silent where all goes well, since build backends warn of this and that; the whole output where it does not.
PIP = quiet() { out=$$("$$@" 2>&1) || { echo "$$out" >&2; exit 1; }; }; \
	quiet $(BIN)/python -m pip --disable-pip-version-check --no-input

# The tests start hundreds of Pythons, and each would compile all of dynpin.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL = help
.PHONY: demo test lint ruff mypy pyright format bench stress fuzz docs lowest dist clean help

demo: $(STAMPS)/lab ## Pinning as a story, on real TLS sockets on loopback
	@$(BIN)/dynpin demo $(ARGS)

test: $(STAMPS)/test ## The test suite
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal $(ARGS)

lint: pyright mypy ruff ## Style and types: ruff, mypy, pyright; with --jobs=2 at the same time

ruff: $(STAMPS)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

mypy: $(STAMPS)/dev
	@$(BIN)/mypy

pyright: $(STAMPS)/dev
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: $(STAMPS)/dev ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMPS)/test ## Measure, as ratios in one run
	@$(BIN)/python -m pytest $(call within,tests/benchmarks) --override-ini=python_files='bench_*.py' --capture=no $(ARGS)

stress: $(STAMPS)/test ## Many processes on one store, and what the suite does by samples, in full
	@$(BIN)/python -m pytest $(call within,tests/stress) --override-ini=python_files='stress_*.py' $(ARGS)

fuzz: $(STAMPS)/test ## Random input for every parser, for FUZZ_SECONDS each (60)
	@$(BIN)/python -m tests.fuzz $(ARGS)

docs: $(STAMPS)/dev ## The site, built strictly into docs/_build/html
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

# On the oldest releases, what others have deprecated since is no finding.
lowest: $(STAMPS)/lowest ## The heart of the suite on the oldest releases that the bounds allow
	@.venvs/lowest/bin/python -m pytest --numprocesses=$(WORKERS) -p no:cacheprovider -o filterwarnings=default \
		$(or $(ARGS),$(LOWEST))

# Reproducible: built twice from one commit, the files are the same to the last byte.
dist: $(STAMPS)/test ## The release: sdist, wheel and SBOM, in dist/
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist . >/dev/null
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python -m venv --clear .venvs/released
	@.venvs/released/bin/python -m pip --quiet install dist/*.whl
	@$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --mc-type library \
		--output-file dist/sbom.cdx.json .venvs/released/bin/python
	@ls -l dist

clean: ## Remove what these targets made
	rm -rf $(VENV) .venvs docs/_build docs/reference/faults docs/reference/commands docs/reference/collector-toml.md build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## These lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- set-up ---------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dynpin needs Python 3.11 or newer: install it, or name it with make PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..." >&2
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade pip
	@mkdir -p $(STAMPS)
	@touch $@

# An environment whose dynpin is another folder's stays as it is: installing from here would change it for that folder.
define own
@$(BIN)/python -Ic 'import importlib.util, os, sys; spec = importlib.util.find_spec("dynpin"); \
	source = os.path.realpath(spec.origin + "/../..") if spec else os.getcwd(); \
	own = source == os.getcwd() or source.startswith(os.path.realpath(sys.prefix)); \
	sys.exit(None if own else f"$(VENV) runs the dynpin of {source}: nothing was installed. Name another folder: make VENV=...")'
endef

$(STAMPS)/lab: $(STAMPS)/venv pyproject.toml
	$(own)
	@echo "Installing dynpin with its lab ..." >&2
	@$(PIP) install --editable '.[lab]'
	@touch $@

# Python 3.11 is the oldest; the releases are those of the day on which dynpin's bounds were written.
$(STAMPS)/lowest: $(STAMPS)/test pyproject.toml
	@echo "Installing the oldest releases that dynpin takes ..." >&2
	@$(BIN)/uv --quiet venv --clear --no-python-downloads --python 3.11 .venvs/lowest
	@$(BIN)/uv --quiet pip install --python .venvs/lowest --resolution lowest-direct --editable '.[$(EXTRAS)]'
	@$(BIN)/uv --quiet pip install --python .venvs/lowest --group tools
	@touch $@

# The test group holds the lab, and the dev group all groups: one installation serves the smaller ones too.
$(STAMPS)/test: $(STAMPS)/venv pyproject.toml
	$(own)
	@echo "Installing dynpin with what its tests need ..." >&2
	@$(PIP) install --editable . --group test
	@touch $@ $(STAMPS)/lab

$(STAMPS)/dev: $(STAMPS)/venv pyproject.toml
	$(own)
	@echo "Installing dynpin with what its tests, docs and checks need ..." >&2
	@$(PIP) install --editable . --group dev
	@touch $@ $(STAMPS)/test $(STAMPS)/lab
