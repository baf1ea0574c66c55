"""The manual cannot drift: pages made from the code are as the code says, and what pages show works.

A block that a test cannot run says so in its title, which the manual shows: ```bash title="needs a GPU". Its commands
still have to exist, with all their options.
"""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest
import typer

from lssvwm_cli.app import app
from lssvwm_datasets.sources import sample_recordings
from tests.conftest import lssvwm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "datasets").glob("*.md"))]
NOTEBOOK = ROOT / "docs/notebooks/first_world.ipynb"
BLOCK = re.compile(r"^```(\w+)(?: title=\"(.*?)\")?[^\n]*\n(.*?)^```", re.S | re.M)
ELSEWHERE = {"README.md", "docs/python.md"}  # whose Python runs in tests/core/test_door.py
ENDLESS = "play"  # which serves until it is stopped
SHORT = {"--frames": "20", "--context": "10", "--episodes": "1", "--minutes": "0.02"}  # what a test makes of an option
RECORDED = 160  # frames of the recordings in the tests


class Block(NamedTuple):
    page: str
    line: int
    language: str
    title: str
    code: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith("needs ")


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page.relative_to(ROOT).as_posix(), line, found[1], found[2] or "", found[3])


def commands(code: str) -> list[list[str]]:
    """The commands of a block for a shell, in words."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        words.whitespace_split = True
        parts: list[list[str]] = [[]]
        for word in words:
            if set(word) <= set("&|;"):
                parts.append([])
            else:
                parts[-1].append(word)
        found += filter(None, parts)
    return found


def lssvwm_commands(code: str) -> list[list[str]]:
    """The words after `lssvwm`, which may be called by torchrun or with a variable before it."""
    found = []
    for words in commands(code):
        for place, word in enumerate(words):
            if word == "lssvwm" or word.endswith("lssvwm)"):
                found.append(words[place + 1 :])
                break
    return found


@pytest.mark.parametrize("page", ["commands.md", "config.md"])
def test_pages_made_from_the_code_are_not_stale(page: str) -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == reference.pages()[page], "run: make reference"


def test_every_command_on_every_page_exists_with_its_options() -> None:
    root: Any = typer.main.get_command(app)
    wrong = []
    for block in blocks():
        if block.language not in ("bash", "sh"):
            continue
        for words in lssvwm_commands(block.code):
            command, rest = root, list(words)
            try:
                while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
                    command = command.commands[rest.pop(0)]
                if not hasattr(command, "commands"):
                    command.make_context("lssvwm", rest)
            except Exception as error:
                wrong.append(f"{block.page}:{block.line}: lssvwm {' '.join(words)}: {error!r}")
    assert not wrong, "\n".join(wrong)


def test_every_block_for_a_shell_runs_or_says_what_it_needs() -> None:
    strangers = [
        f"{block.page}:{block.line}: {' '.join(words)}"
        for block in blocks()
        if block.language in ("bash", "sh") and block.runs
        for words in commands(block.code)
        if words[0] not in ("lssvwm", "make")
    ]
    assert not strangers, 'give the block a title="needs …", or use lssvwm alone:\n' + "\n".join(strangers)


def shortened(words: list[str]) -> list[str]:
    """The same command with as little work as possible."""
    short = SHORT | ({"--frames": "10"} if words[0] == "eval" else {})
    seen = ["--context", "10"] if words[0] in ("rollout", "eval") and "--context" not in words else []
    return [short.get(before, word) for before, word in zip(["", *words], words, strict=False)] + seen


RUNNABLE = [block for block in blocks() if block.language in ("bash", "sh") and block.runs and "lssvwm " in block.code]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the beginnings of two recordings that ship, prepared."""
    folder = tmp_path_factory.mktemp("manual")
    for split in ("train", "eval"):
        recording = next((sample_recordings() / split).glob("*.npz"))
        (folder / "recordings/maze" / split).mkdir(parents=True)
        with np.load(recording) as arrays:
            short = {name: rows[:RECORDED] for name, rows in arrays.items()}
        np.savez(folder / "recordings/maze" / split / recording.name, **short)
    lssvwm(folder, "prepare", "maze", "--jobs", "1")
    return folder


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"{block.page}:{block.line}")
def test_blocks_for_a_shell_run(block: Block, workplace: Path) -> None:
    for words in lssvwm_commands(block.code):
        if words[:1] != [ENDLESS]:
            lssvwm(workplace, *shortened(words))


PYTHON = [b for b in blocks() if b.language == "python" and b.runs and b.page not in ELSEWHERE]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_blocks_of_python_run(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block.code, {"__name__": "block"})


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "toml"], ids=lambda b: f"{b.page}:{b.line}")
def test_blocks_of_toml_are_toml(block: Block) -> None:
    tomllib.loads(block.code)


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib

    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace("SEEN = 60", "SEEN = 20"), names)
    means = [names["psnr"](names[video]).mean() for video in ("remembered", "forgotten")]
    assert means[0] > means[1], "a world remembers what it has seen"


def test_the_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
    assert len(text.split()) <= 900, "one story: the rest is for the manual"


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    pytest.importorskip("mkdocs_jupyter", reason="needs the extra docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "notebooks/first_world/index.html").exists()
    broken = [
        f"{page.relative_to(tmp_path)}: {link}"
        for page in tmp_path.rglob("index.html")
        for link in re.findall(r'(?:href|src)="(?![a-z]+:|#)([^"#?]+)', page.read_text(encoding="utf-8"))
        if not (page.parent / unquote(link)).exists()
    ]
    assert not broken


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}] - 2" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
