# make demo: from recordings to an 800-frame video.   make test: lint, types, tests.
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 2

.PHONY: demo test format clean

demo: .venv/installed
	mkdir -p demo
	cd demo && ../$(BIN)/lssvwm prepare maze
	cd demo && ../$(BIN)/lssvwm train --init-from maze-world --minutes $(MINUTES) --steps 100000
	cd demo && ../$(BIN)/lssvwm rollout --frames 800 --side-by-side --map --out video.mp4
	@echo "The video is $(CURDIR)/demo/video.mp4 (left: the recording, right: the world's dream), its map demo/video.map.png"

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev,maze]'
	touch $@

clean:
	rm -rf .venv demo
