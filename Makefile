# Everything installs itself on first use. VENV=FOLDER names another environment, PYTHON=NAME another interpreter.
VENV ?= .venv
PYTHON ?= python3
JOBS ?= 2

PY := $(VENV)/bin/python
# The stamp is named after what it stands for, not after a date: the files below and the place of this checkout.
STAMP := $(VENV)/.repae-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)-$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)

.PHONY: help setup demo miniature two-stage test check clean

help:
	@echo "make demo       train, sample and evaluate on bundled images, and write a report (minutes, no GPU)"
	@echo "make miniature  the paper in miniature: five methods, three seeds each, one table"
	@echo "make two-stage  tune jointly, then train on the frozen VAE: original against tuned, one table"
	@echo "make test       the checks and the whole test suite"
	@echo "make check      style, types, floors and size budgets only"
	@echo "make clean      remove caches and builds; runs/ and $(VENV) stay"

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit("repae needs Python 3.10 or newer, this is " + sys.version.split()[0] + "; name another one with PYTHON=..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.repae-*
	@touch $@

demo: setup
	$(PY) -m repae demo

miniature: setup
	$(PY) -m experiments.miniature --jobs $(JOBS) --out docs

two-stage: setup
	$(PY) -m experiments.two_stage --jobs $(JOBS) --out docs

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright
	$(PY) -c 'from importlinter.cli import lint_imports_command as run; run()'
	$(PY) -m pytest -q tests/test_house.py tests/test_architecture.py tests/test_prose.py

# The second pass checks every shape annotation of the package while the quick tests run.
test: check
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) -m "not slow" --jaxtyping-packages=repae,beartype.beartype

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +
