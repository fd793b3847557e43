# Needs Python 3.11 or newer, pip and make. Everything else is installed into .venv by the first target that wants it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long check format docs lock clean

demo: .venv/installed
	$(BIN)/unfreeze demo

test: check
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow"

test-long: check
	$(BIN)/python -m pytest -q -n auto --dist loadfile

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mkdocs-material is installed only here: nothing else needs it.
docs: .venv/installed
	$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements-docs.lock
	$(BIN)/mkdocs build --strict

# What is locked comes with its hashes; PyTorch, whose build depends on the machine, and what it brings is not locked.
# pip 25.1 reads dependency groups.
.venv/installed: pyproject.toml requirements-dev.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q "pip>=25.1,<26.2"
	$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install -q --no-build-isolation -e . --group dev
	touch $@

# Takes the latest releases; for every platform and Python from 3.11 on.
lock: .venv/installed
	$(BIN)/python -m pip install -q uv
	printf "torch ; python_version < '0'\ntorchvision ; python_version < '0'\n" > .venv/not-locked
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --upgrade --generate-hashes --group dev \
		--override .venv/not-locked --no-header --no-annotate -o requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --upgrade --generate-hashes --group docs \
		--constraint requirements-dev.lock --no-header --no-annotate -o requirements-docs.lock

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
