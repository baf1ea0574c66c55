"""The front door: what `lssvwm_core` offers, quickly, and the README's example of it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lssvwm_core
from lssvwm_core import LssvwmError, load_world

ROOT = Path(__file__).parents[2]


def test_everything_offered_is_there() -> None:
    assert all(getattr(lssvwm_core, name) is not None for name in lssvwm_core.__all__)
    assert set(lssvwm_core.__all__) <= set(dir(lssvwm_core))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lssvwm_core.nothing


def test_the_door_is_light() -> None:
    """Importing the package loads no torch: `lssvwm --help` goes through here."""
    code = "import sys, lssvwm_core; assert not {'torch', 'numpy', 'h5py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_of_readme_and_module_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    readme = re.search(r"```python\n(from lssvwm_core import .*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert readme
    module = re.sub(
        "^    ", "", (lssvwm_core.__doc__ or "").partition("\n\n    from ")[2].partition("\n\nWhat")[0], flags=re.M
    )
    examples = [readme[1], f"from {module}"]
    for example in examples:
        short = example.replace("240", "10").replace("480", "20")
        names: dict[str, object] = {}
        exec(short, names)
        video = np.concatenate(names["video"])  # type: ignore[call-overload]
        assert video.shape == (10, 64, 64, 3)


@pytest.mark.parametrize("name", ["maze-world", Path(lssvwm_core.__file__).parent / "weights/maze-world", None])
def test_worlds_are_found_by_every_kind_of_name(
    name: str | Path | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_world(name, "cpu").header.dataset == "maze"
    if name is not None:
        assert lssvwm_core.PretrainedWorld.from_pretrained(str(name)).header.dataset == "maze"


def test_other_names_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LssvwmError, match="no such model"):
        load_world("nothing")


def test_the_recipes_of_the_manual_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/python.md").read_text("utf-8")
    first, *recipes = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, object] = {}
    for code in (first.replace("240", "10").replace("480", "20"), *recipes):
        exec(code.replace("100", "20").replace("105", "25"), names)
    assert names["frames"].shape == (1, 5, 64, 64, 3)  # type: ignore[attr-defined]
    walks = [np.concatenate(walk) for walk in names["walks"]]  # type: ignore[attr-defined]
    assert all(walk.shape == (20, 64, 64, 3) for walk in walks)
    assert not np.array_equal(walks[0], walks[2])
    listed = set(re.findall(r"^\| `(\w+)", text, re.M)) | {"RenderOptions"}
    assert listed == set(lssvwm_core.__all__)
