# Needs make, Python 3.11 and pip. `make demo`: set up and run the main job. `make test`: set up and pass the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test check setup clean

demo: $(READY)
	$(BIN)/affuse demo --out demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python benchmarks/imports.py

setup: $(READY)

# torch comes first and by its plain name, so that a CPU build that is already chosen is kept (see README).
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "affuse needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch numpy
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo
