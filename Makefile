# make demo      set up, make a demo data set, train two runs on it and compare them
# make test      set up and run the fast tests: all that stays in its process and takes seconds
# make test-all  every test but the campaigns
# make check     linters, types and the layers of the packages
# make cover     every test but the campaigns, with the lines that no test reaches
# make docs      the documentation site, in site/index.html

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BIN     := $(VENV)/bin
PYTEST  := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all cover check docs setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(PYTEST) -m 'not process and not slow and not campaign'

test-all: setup
	$(PYTEST) --hypothesis-profile all

cover: setup
	$(PYTEST) --hypothesis-profile all --cov --cov-report term

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs data site
