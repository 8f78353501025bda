# make demo: set everything up and ground the sample photographs.
# make test: set everything up and run the tests.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Python compiles what is imported when it first is, and keeps that; to compile all that is installed takes a minute.
export PYTHONDONTWRITEBYTECODE =
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test check lint types clean

demo: $(VENV)/.demo
	$(BIN)/python scripts/sample_photos.py samples
	$(BIN)/aas ground samples --out grounded
	@echo "Look at: $(CURDIR)/grounded/report.html and the pictures beside it"

# Two processes of one thread each: the models of the tests are too small for more. The order of files: tests/conftest.py.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint types

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aas needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) --editable ".[dev,demo]"
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) samples grounded
