# make train and make test work on a fresh machine: each makes the virtual environment first if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test test-slow lint docs pictures wheel setup
.DEFAULT_GOAL := train

train: setup            ## train on the embedded synthetic CT and print its scores
	$(BIN)/python train.py

test: setup             ## the tests that take seconds each, on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: setup        ## the tests that take longer
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --numprocesses 2

lint: setup             ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: setup             ## the documentation, into site/; a broken link or a missing docstring is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: setup         ## the pictures of README and documentation, docs/images/, anew: a training of some minutes
	$(BIN)/python train.py study=pictures logger=none
	cp outputs/latest/figures/overlays.png docs/images/overlay.png
	$(BIN)/python -m benchmarks.screenshots outputs/latest

wheel: setup            ## the installable package, in dist/
	rm -rf build  # what setuptools finds there it would pack again, also modules that are gone
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose another with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
