# make demo: set everything up and ground the sample photographs.
# make test: set everything up and run the tests.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Gradio 6.31 asks for a Pillow below the tested one, and works with it (tests/test_app.py). So it is installed without its
# own list of what it needs, which stands here.
OF_GRADIO = anyio brotli fastapi gradio_client groovy hf-gradio httpx opentelemetry-api orjson pandas pydantic pydub \
	python-multipart pytz pyyaml safehttpx semantic-version starlette tomlkit uvicorn \
	'audioop-lts; python_version >= "3.13"'

.PHONY: demo test check clean

demo: $(VENV)/.demo
	$(BIN)/python scripts/sample_photos.py samples
	$(BIN)/aas ground samples --out grounded
	@echo "Look at: $(CURDIR)/grounded/report.html and the pictures beside it"

# Two processes of one thread each: the models of the tests are too small for more.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aas needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) --editable . scikit-image $(OF_GRADIO)
	$(PIP) --no-deps gradio
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) --editable ".[dev]" $(OF_GRADIO)
	$(PIP) --no-deps gradio
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) samples grounded
