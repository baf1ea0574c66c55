"""What the README shows runs as written."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, object] = {}
    exec(example, names)
    frames = names["frames"]
    assert (frames.shape, str(frames.dtype)) == ((5, 64, 64, 3), "uint8")  # type: ignore[attr-defined]
