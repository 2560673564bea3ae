# `make demo` and `make test` are all a new user needs; `make test-all` takes longer. Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ASSETS ?= ../shared/assets/head
DATA ?= ../shared/data
OUT ?= out

.PHONY: demo test test-all lint docs web bench report clean

demo: $(VENV)/base.done
	$(BIN)/canthus align examples/astronaut.jpg --mesh obj --out $(OUT)

# one process a core, at most 4; a file stays in one process, because its tests share what they trained
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(VENV)/test.done lint
	$(PYTEST) -m "not slow"

test-all: $(VENV)/test.done lint
	$(PYTEST)

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages as a site, offline; a warning is an error
docs: $(VENV)/test.done
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs $(OUT)/docs
	@echo "pages in $(OUT)/docs/index.html"

# the page that finds faces in the browser, into web/dist; wants npm
web: $(VENV)/base.done
	cd web && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/python tools/build_web.py

# what the pictures are drawn from, if it is there
PARTS = $(if $(wildcard $(ASSETS)),--assets $(ASSETS))

bench: $(VENV)/test.done report
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/throughput.py --cores
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/many.py --room $(OUT)/many
	$(BIN)/python benchmarks/render.py $(PARTS)
	$(BIN)/python benchmarks/track.py $(PARTS) --data $(DATA) --rendered $(OUT)/clips
	$(BIN)/python benchmarks/scenes.py $(PARTS) --rendered $(OUT)/actors
	$(BIN)/python benchmarks/memory.py --out $(OUT)/memory
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/fitting.py --data $(DATA) --held $(OUT)/held
	$(BIN)/python benchmarks/cards.py
	$(BIN)/python tools/readme.py

# every weight of the project on every set, the whole report and one table: minutes to an hour a weight
report: $(VENV)/test.done
	$(BIN)/python benchmarks/accuracy.py $(PARTS) --data $(DATA) --held $(OUT)/held --expressions $(OUT)/held_expressions \
		--extremes $(OUT)/held_extremes
	$(BIN)/python benchmarks/report.py $(PARTS) --data $(DATA) --held $(OUT)/held --clips $(OUT)/clips --out $(OUT)/report

$(VENV)/base.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu]'
	touch $@

$(VENV)/test.done: $(VENV)/base.done
	$(PIP) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
