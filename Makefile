# make run                     serve the bundled street clip; prints the page's address
# make run CONFIG=my.yaml      serve your own cameras
# make test                    the whole suite
# make check                   formatting, lint and types, as CI does
#
# Each sets up all it needs in .venv. Where your package index offers only CUDA builds of torch and you
# want the CPU one, tell pip: make run PIP_ARGS="--extra-index-url <your CPU index>"

PYTHON ?= python3
VENV ?= .venv
CONFIG ?=
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

.PHONY: run test check clean
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(BIN)/edgeward serve $(CONFIG)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
		f"edgeward needs Python 3.11 to 3.13, $(PYTHON) is {v[0]}.{v[1]}; run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml constraints.txt no-deps.txt
	@echo "Installing edgeward into $(VENV) (once; a few minutes)"
	$(PIP) -c constraints.txt -e '.[video,web]'
	$(PIP) --no-deps -r no-deps.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(PIP) -c constraints.txt -e '.[dev]'
	$(PIP) --no-deps -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) box-data
