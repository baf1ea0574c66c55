"""Film the page of `lssvwm play`: a walk back along the recorded way, in a browser, one picture a frame, as a GIF.

    lssvwm record maze --episodes 0 --eval-episodes 6 --steps 400 --seed 500004 --out recordings/six
    python docs/play_gif.py docs/play.gif maze-world recordings/six/eval/1500009-400.npz

What the agent comes back to is remembered; what it never looked at is made up. Needs the extra `play`, playwright,
Debian's chromium, and a machine with time to spare.
"""

import io
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lssvwm_datasets.memory_maze.explorer import towards
from lssvwm_datasets.memory_maze.maze import MAZE

VIEWPORT = {"width": 900, "height": 620}
SHOWN = {"x": 0, "y": 0, "width": 520, "height": 600}  # of the page: the picture, the keys and the map
WIDTH, PAUSE = 390, 125  # of the GIF, in pixels and ms a frame; the world itself runs at 4 frames a second
FRAMES = 90
STRIDE, NEAR = 6, 0.5  # the way back leads over every sixth place of the recording, to within so many cells of each


def main(out: Path, checkpoint: str, recording: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        shutil.copy(recording, data)
        command = [sys.executable, "-m", "lssvwm_cli.app", "play", checkpoint, "--port", "0", "--data", data]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as driver:
            try:
                assert server.stderr is not None
                link = next(line.split()[1] for line in server.stderr if line.startswith("play: "))
                browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = browser.new_page(viewport=VIEWPORT, bypass_csp=True)
                page.goto(link)
                page.wait_for_function("status?.spot && path.length > 1")
                first, *rest = walk_back(page)
                first.save(out, save_all=True, append_images=rest, duration=PAUSE, loop=0)
                browser.close()
            finally:
                server.terminate()


def walk_back(page: Page) -> Iterator[Image.Image]:
    """Hold the keys that lead back along the recorded way; yields the page with each frame."""
    keys = {MAZE.move_names.index(move): key for key, move in MAZE.keys.items()}
    goals = page.evaluate("path.slice(0, context)")[::-STRIDE]
    held = None
    for _ in range(FRAMES):
        x, y, heading = page.evaluate("status.spot")
        while goals and math.dist(goals[0], (x, y)) < NEAR:
            goals.pop(0)
        if not goals:
            return
        key = keys[towards(tuple(goals[0]), x, y, heading)]
        if key != held:
            if held:
                page.keyboard.up(held)
            page.keyboard.down(key)
            held = key
        yield film(page)


def film(page: Page) -> Image.Image:
    """The page with its next frame, in 256 colours."""
    shown = page.evaluate("Number(document.getElementById('picture').dataset.frames ?? -1)")
    page.wait_for_function(f"Number(document.getElementById('picture').dataset.frames ?? -1) > {shown}")
    image = Image.open(io.BytesIO(page.screenshot(clip=SHOWN))).convert("RGB")
    image = image.resize((WIDTH, WIDTH * image.height // image.width), Image.Resampling.LANCZOS)
    return image.quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
