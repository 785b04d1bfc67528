# Everything happens in .venv; nothing is installed outside it. PYTHON names the interpreter to build it from (3.11 or newer).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS ?= 1

.PHONY: demo test setup check lint types docs claims bench clean

.venv/python:
	$(PYTHON) -m venv .venv
	@touch $@

# torch comes first and by exact version: asked for as a range, the index offers gigabytes of CUDA
.venv/base: .venv/python pyproject.toml constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable '.[fast,mujoco]'
	@touch $@

.venv/test: .venv/base
	$(PIP) --editable '.[test,dev,docs]'
	@touch $@

demo: .venv/base  ## install and run the first study; ends with a table of claims
	$(BIN)/mindworks run pbvf --scale cpu

test: .venv/test  ## install the test extras and run every test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/test
	$(BIN)/mypy

check: lint types test  ## what CI runs

docs: .venv/test  ## the documentation site, in build/docs
	$(BIN)/python scripts/docs_site.py

setup: .venv/test  ## every extra and tool
	$(PIP) --editable '.[fast,mujoco,rl,minatar,agents,serve,diffusion,vision,robotics,cluster,track,bench,test,dev,docs]'

claims: .venv/base  ## every study at cpu scale; writes results/ and the tables of README.md and docs/
	$(BIN)/mindworks claims

bench: .venv/base  ## every comparison with a peer; writes results/benchmarks/
	$(PIP) --editable '.[bench]'
	@status=0; for script in benchmarks/vs_*.py; do echo "== $$script"; $(BIN)/python $$script || status=1; done; \
	$(BIN)/python benchmarks/tables.py && $(BIN)/python scripts/docs_tables.py && exit $$status

clean:
	rm -rf .venv build/docs runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
