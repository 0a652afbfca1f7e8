# Each target makes the virtual environment .venv itself. Another interpreter: make PYTHON=python3.13 ...
# The newest releases of all packages: make CONSTRAINTS=/dev/null ...
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)
STAMP := .venv/.made-for-$(VERSION)-$(notdir $(CONSTRAINTS))
# One more than there are processors, since tests also wait for processes that they start.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))' 2>/dev/null)
# A file's tests stay together, and with them the runs that they share.
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

.PHONY: demo test fast whole-runs lint format docs clean

demo: $(STAMP)
	$(BIN)/tlc study --config=configs/demo.py --workdir=runs/demo
	$(BIN)/tlc report --workdir=runs/demo

test: fast whole-runs

fast: $(STAMP)
	$(PYTEST) $(addprefix --ignore=tests/,$(WHOLE_RUNS))

# On four devices: the eight of the other tests would take turns on a few processors at every step.
whole-runs: $(STAMP)
	XLA_FLAGS="$$XLA_FLAGS --xla_force_host_platform_device_count=4" $(PYTEST) $(addprefix tests/,$(WHOLE_RUNS))

# Tests of whole runs of commands, most of which start processes. What takes longest comes first.
WHOLE_RUNS := commands/test_runs_in_object_storage.py commands docs test_examples.py test_old_files.py \
  launch tasks/test_fourth_task.py test_api.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Reads nothing from the network once the extra is installed.
docs: $(STAMP)
	@$(BIN)/python -c 'import material' 2>/dev/null || \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documentation is site/index.html"

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Remade whenever the pins, the interpreter or the choice of pins change. The stamp comes last, so a half-made environment is never taken for a whole one.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tlc_jax needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "making .venv (a few minutes the first time)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@
