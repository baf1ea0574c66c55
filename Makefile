# make demo: from recordings to an 800-frame video.   make test: lint, types, tests.   make docs: the manual, in site/.
# All install the versions of constraints.txt, which the tests ran with.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt
MINUTES ?= 2
# the GPU kernels of the scan: without a GPU the tests run them in Triton's interpreter (Linux only)
MAMBA_SSM = if [ "$$(uname -s)" = Linux ]; then $(INSTALL) setuptools wheel packaging ninja einops triton && \
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE \
	$(INSTALL) --no-build-isolation --no-deps mamba-ssm; fi

.PHONY: demo test docs reference format clean

demo: .venv/installed
	mkdir -p demo
	cd demo && PATH="$(CURDIR)/$(BIN):$$PATH" MINUTES=$(MINUTES) ../demo.sh

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict

reference: .venv/installed-dev
	$(BIN)/python docs/reference.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt .venv/installed
	$(INSTALL) --editable '.[dev,maze,docs]'
	$(MAMBA_SSM)
	touch $@

clean:
	rm -rf .venv demo site
