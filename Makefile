# `make demo` and `make test` set up everything they need in .venv (Python 3.11, Linux x86-64, no GPU).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help install demo demo-live test unit integration slow check lock clean
PARTS := check unit integration
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(SETUP) ## the CPU profile from the hashed lock, into .venv

# torch first and outside the lock: it is the CPU build where one is at hand. deepspeed has no wheel and is built against it.
$(SETUP): pyproject.toml locks/cpu.txt locks/cpu-source.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or set PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0
	$(PIP) install --no-deps --require-hashes -r locks/cpu.txt
	DS_BUILD_OPS=0 $(PIP) install --no-deps --no-build-isolation --require-hashes -r locks/cpu-source.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $(SETUP)

demo: $(SETUP) ## the whole loop on the demo data, about 13 minutes on 2 cores
	$(BIN)/llm2llm run jobs/demo.yaml

demo-live: $(SETUP) ## the demo with a 1.5B teacher that answers here: downloads 1.1 GB at first, needs 16 GB of memory, slow
	$(BIN)/llm2llm run jobs/demo_live.yaml

# Each part is run to its end, whatever the others say. pytest that finds no test (exit code 5) has failed like any other.
test: $(SETUP) ## what CI runs: check, unit and integration
	@told=; failed=0; for part in $(PARTS); do \
		if $(MAKE) --no-print-directory $$part; then told="$$told$$part: passed\n"; \
		else failed=1; told="$$told$$part: FAILED\n"; fi; done; \
	printf "\n$$told"; exit $$failed

check: $(SETUP) ## ruff and mypy
	@failed=0; for line in "ruff check ." "ruff format --check ." mypy; do \
		echo "$$line"; $(BIN)/$$line || failed=1; done; exit $$failed

unit: $(SETUP) ## no Ray, a minute
	$(BIN)/python -m pytest tests/unit -q -m "not slow" -n auto --dist loadfile

integration: $(SETUP) ## the real stack on CPU, some 20 minutes
	$(BIN)/python -m pytest tests/integration -q -m "integration and not slow" -n 2 --dist loadfile --durations=30

slow: $(SETUP) ## left out of CI: kill tests with the real demo, and the model that is downloaded in parts
	$(BIN)/python -m pytest tests -q -m slow

lock: $(SETUP) ## resolve locks/cpu.in anew
	$(BIN)/python locks/make_lock.py

clean: ## the environment and caches, not the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
