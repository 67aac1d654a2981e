# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint check suites slow clean

demo: $(VENV)/.installed
	$(BIN)/robeval run suites/quickstart.yaml

# What CI runs: lint and types, every test, the quickstart suites.
test: $(VENV)/.tested lint check suites

lint: $(VENV)/.tested
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

check: $(VENV)/.tested
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

suites: $(VENV)/.tested
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check_quickstart.sh
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check_papers.sh

slow: $(VENV)/.tested
	$(BIN)/python -m pytest -m slow

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed $(wildcard plugins/*/pyproject.toml)
	$(PIP) -e ".[test,lint]"
	for plugin in plugins/*/pyproject.toml; do $(PIP) -e "$$(dirname "$$plugin")"; done
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
