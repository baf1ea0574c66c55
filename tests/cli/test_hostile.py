"""A fuzz of what users are given by others: a file of every kind is damaged, and a command meets it.

Whatever the damage, the command ends by itself with exit code 0 or 1, an error is one line without a traceback that is
no bug of ours, and nothing outside the folder changes. Case `n` is the same in every run; `LSSVWM_FUZZ=1000` tries a
thousand of them.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lssvwm_cli.app import run
from lssvwm_cli.ending import exit_code_of
from lssvwm_datasets.sources import all_formats
from tests.conftest import SMALL_MODEL
from tests.datasets.layouts import write_all

CASES = int(os.environ.get("LSSVWM_FUZZ", "60"))
SECONDS = 120  # within which a command must end, on a machine with other work
FORMATS = ("minerl", "vpt", "teco-minecraft", "teco-dmlab", "worldmem")
SHORT = ("--steps", "1", "--frames", "10")
ROLLOUT = ("rollout", *SHORT, "--context", "5", "--upscale", "1", "--out", "out.mp4")
EVAL = ("eval", "retrieval", "--context", "10", *SHORT, "--episodes", "1", "--videos", "0", "--out", "evaluation")
TRAIN = ("train", "--name", "test", "--threads", "1", *(part for field in SMALL_MODEL for part in ("--set", field)))
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**70, -(2**70), 1e308, 0.5, float("nan"), float("inf")),
    *(
        "",
        "x" * 5000,
        "../../outside/kept.txt",
        "/etc/passwd",
        "\x1b[2J[/b]\u202e",
        "\ud800",
        "\0",
        "1e9",
        [],
        {},
        [[]],
    ),
)


@dataclass(frozen=True)
class Kind:
    """Files of one kind, as a pattern below the folder, and the commands that read them."""

    files: str
    commands: tuple[tuple[str, ...], ...]


KINDS = {
    "index": Kind("data/maze/dataset.json", (("inspect", "data/maze"), ROLLOUT, TRAIN)),
    "shard": Kind("data/maze/*.h5", (("inspect", "data/maze"), ("inspect", "data/maze", "--verify"), ROLLOUT)),
    "autoencoder of shards": Kind("data/maze/autoencoder/*", (("inspect", "data/maze", "--actions"), TRAIN)),
    "world": Kind("runs/test/checkpoints/*/model/*.*", (ROLLOUT,)),
    "autoencoder of a run": Kind("runs/test/autoencoder/*", (ROLLOUT,)),
    "training state": Kind("runs/test/checkpoints/*/training_state/*", ((*TRAIN, "--steps", "5"),)),
    "run": Kind("runs/test/*.*", ((*TRAIN, "--steps", "5"), ROLLOUT)),
    "config": Kind("config.toml", (("train", "--name", "new", "--steps", "1", "--config", "config.toml"),)),
    "state": Kind("runs/play/*.safetensors", ((*ROLLOUT, "--load-state", "runs/play/slot.safetensors"), ("play",))),
    "evaluation": Kind("evaluation/*.json", (EVAL,)),
    "results": Kind("evaluation/episodes/*", (EVAL,)),
    "maze": Kind("recordings/maze/*/*", (("inspect", "recordings/maze"),)),
} | {name: Kind(f"recordings/{name}/**/*.*", (("inspect", f"recordings/{name}"),)) for name in FORMATS}


@pytest.fixture(scope="module")
def original(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an intact file of every kind."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(workspace / "data", folder / "data")
    shutil.copytree(workspace / "runs/test", folder / "runs/test", symlinks=True)
    for format in ("maze", *FORMATS):
        write_all(format, folder / "recordings" / format)
    shutil.copy(folder / "runs/test/config.toml", folder / "config.toml")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run([*ROLLOUT, "--save-state", "runs/play/slot.safetensors"]) == 0
        assert run(EVAL) == 0
    finally:
        os.chdir(before)
    return folder


def damaged_json(content: Any, dice: random.Random) -> Any:
    """The content with a value, a name or a whole part replaced."""
    if isinstance(content, dict) and content and dice.random() < 0.9:
        name = dice.choice(list(content))
        what = dice.random()
        if what < 0.15:
            return {key: value for key, value in content.items() if key != name}
        if what < 0.25:
            return content | {str(dice.choice(HOSTILE)): content[name]}
        return content | {name: damaged_json(content[name], dice)}
    if isinstance(content, list) and content and dice.random() < 0.8:
        place = dice.randrange(len(content))
        return [*content[:place], damaged_json(content[place], dice), *content[place + dice.choice((0, 1, 1, 1)) :]]
    return dice.choice(HOSTILE)


def damaged_bytes(content: bytes, dice: random.Random) -> bytes:
    """Bits turned, a part cut out, doubled or replaced, or the end missing; heads and ends are hit more often."""
    size = len(content)
    place = dice.choice(
        (dice.randrange(size + 1), dice.randrange(min(size, 400) + 1), max(0, size - dice.randrange(400)))
    )
    length = dice.choice((1, 1, 2, 8, 100, size))
    return {
        "bit": lambda: (
            content[:place]
            + bytes(b ^ 1 << dice.randrange(8) for b in content[place : place + 1])
            + content[place + 1 :]
        ),
        "cut": lambda: content[:place] + content[place + length :],
        "end": lambda: content[:place],
        "double": lambda: content[:place] + content[place : place + length] * 2 + content[place + length :],
        "noise": lambda: content[:place] + dice.randbytes(min(length, 4096)) + content[place + length :],
        "ff": lambda: content[:place] + b"\xff" * min(length, 8) + content[place + min(length, 8) :],
        "nothing": lambda: b"",
    }[dice.choice(("bit", "bit", "bit", "cut", "end", "double", "noise", "ff", "nothing"))]()


def damage(path: Path, dice: random.Random) -> str:
    """Damage a file; says how."""
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and dice.random() < 0.7:
        lines = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
        number = dice.randrange(len(lines)) if lines else 0
        lines[number : number + 1] = [json.dumps(damaged_json(json.loads(lines[number]), dice))] if lines else ["[]"]
        if dice.random() < 0.1:
            lines[number] = "[" * 200_000
        changed = "\n".join(lines).encode()
    elif path.suffix == ".toml" and dice.random() < 0.7:
        lines = content.decode().splitlines()
        number = dice.choice([k for k, line in enumerate(lines) if "=" in line])
        value = dice.choice(
            ("-1", "2.5", "1e400", "nan", "true", '"x"', "[]", "{}", str(2**70), "'../..'", "[[1]]", "0")
        )
        lines[number] = f"{lines[number].partition('=')[0]}= {value}"
        changed = "\n".join(lines).encode()
    else:
        changed = damaged_bytes(content, dice)
    what = dice.random()
    path.unlink()
    if what < 0.02:
        os.mkfifo(path) if hasattr(os, "mkfifo") else path.mkdir()
    elif what < 0.04:
        path.mkdir()
    else:
        path.write_bytes(changed)
    return f"{path}: {len(content)} -> {len(changed)} bytes"


@pytest.fixture
def limited_time() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise SystemExit(f"no end within {SECONDS} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("limited_time")
@pytest.mark.parametrize("number", range(CASES))
def test_a_damaged_file_is_one_line(
    number: int,
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dice = random.Random(number)
    kind = KINDS[list(KINDS)[number % len(KINDS)]]
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    shutil.copytree(original, folder, symlinks=True)
    outside.mkdir()
    (outside / "kept.txt").write_text("kept", encoding="utf-8")
    monkeypatch.chdir(folder)
    how = damage(dice.choice(sorted(path for path in Path().glob(kind.files) if path.is_file())), dice)
    arguments = dice.choice(kind.commands)
    command: Callable[[], int] = (lambda: play(folder)) if arguments == ("play",) else (lambda: run(arguments))
    code = command()
    shown = capsys.readouterr()
    story = f"{how}\n{' '.join(arguments)}\nexit code {code}\n{shown.err}"
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert code in (0, 1), story
    assert len(errors) == code, story
    assert "Traceback" not in shown.out + shown.err, story
    assert "this is a bug" not in shown.err, story
    assert all(letter.isprintable() or letter == "\n" for letter in shown.out + shown.err), story
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "outside"}, story
    assert [path.read_text(encoding="utf-8") for path in outside.iterdir()] == ["kept"], story


def play(folder: Path) -> int:
    """Load the saved moment as a player would, and go on for a frame."""
    from lssvwm_core.play.game import Game
    from lssvwm_core.world import load_world

    def load() -> None:
        world = load_world("test").sampled_with(1)
        game = Game(world, folder / "data/maze", folder / "runs/play", 5)
        try:
            game.load("slot")
        finally:
            game.step(0)  # the game goes on, whatever the slot held

    return exit_code_of(load)


def test_the_same_number_is_the_same_case(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        path = tmp_path / "a.json"
        path.unlink(missing_ok=True)
        path.write_text(json.dumps({"a": [1, 2, {"b": "c"}], "d": None}), encoding="utf-8")
        damage(path, random.Random(7))
        made.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert made[0] == made[1]
    assert "maze" in all_formats()
    assert sys.version_info >= (3, 11)
