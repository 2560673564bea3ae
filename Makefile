# `make demo` and `make test` are all a new user needs. Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ASSETS ?= ../shared/assets/head
DATA ?= ../shared/data
OUT ?= out

.PHONY: demo test lint bench clean

demo: $(VENV)/base.done
	$(BIN)/canthus align examples/astronaut.jpg --mesh obj --out $(OUT)

test: $(VENV)/test.done lint
	$(BIN)/python -m pytest

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/test.done
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/render.py $(if $(wildcard $(ASSETS)),--assets $(ASSETS))
	$(BIN)/python benchmarks/accuracy.py --data $(DATA)
	$(BIN)/python benchmarks/report.py --data $(DATA)
	$(BIN)/python benchmarks/track.py --assets $(ASSETS) --data $(DATA)
	$(if $(HELD),$(BIN)/python benchmarks/fitting.py --data $(DATA) --held $(HELD))
	$(BIN)/python benchmarks/readme.py

$(VENV)/base.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/test.done: $(VENV)/base.done
	$(PIP) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
