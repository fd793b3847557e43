# Needs Python 3.11 or newer, pip and make. Everything else is installed into .venv by the first target that wants it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long check format clean

demo: .venv/installed
	$(BIN)/unfreeze demo

test: check
	$(BIN)/python -m pytest -q -m "not slow"

test-long: check
	$(BIN)/python -m pytest -q

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip 25.1 reads dependency groups
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q "pip>=25.1,<26.2"
	$(BIN)/python -m pip install -q -e . --group dev
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
