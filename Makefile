# make demo: from recordings to an 800-frame video.   make test: lint, types, tests.
# Both install the versions of constraints.txt, which the tests ran with.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt
MINUTES ?= 2
# the GPU kernels of the scan: without a GPU the tests run them in Triton's interpreter (Linux only)
MAMBA_SSM = if [ "$$(uname -s)" = Linux ]; then $(INSTALL) setuptools wheel packaging ninja einops triton && \
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE \
	$(INSTALL) --no-build-isolation --no-deps mamba-ssm; fi

.PHONY: demo test format clean

demo: .venv/installed
	mkdir -p demo
	cd demo && ../$(BIN)/lssvwm prepare maze
	cd demo && ../$(BIN)/lssvwm train --init-from maze-world --set train.learning_rate=1e-4 \
		--minutes $(MINUTES) --steps 100000
	cd demo && ../$(BIN)/lssvwm rollout --frames 800 --side-by-side --map --out video.mp4
	@echo "The video is $(CURDIR)/demo/video.mp4 (left: the recording, right: what the world generates), its map demo/video.map.png"

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt .venv/installed
	$(INSTALL) --editable '.[dev,maze]'
	$(MAMBA_SSM)
	touch $@

clean:
	rm -rf .venv demo
