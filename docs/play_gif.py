"""Film the page of `lssvwm play`: a fixed walk in a browser, one picture a frame, as a GIF.

    python docs/play_gif.py docs/play.gif maze-world

Needs the extra `play`, playwright and Debian's chromium, and a machine with time to spare: keys are held for a number
of frames that are seen. Run it where there is no data/maze: the walk is meant for the sample that ships.
"""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lssvwm_core.video import video_writer

WALK = (("d", 1), ("w", 7), ("a", 5), ("w", 13), ("a", 10), ("w", 13), ("d", 5), ("w", 6))  # there and back
VIEWPORT = {"width": 900, "height": 620}
WIDTH, FPS = 600, 8  # of the GIF; the world itself runs at 4 frames a second


def main(out: Path, checkpoint: str) -> None:
    command = [sys.executable, "-m", "lssvwm_cli.app", "play", checkpoint, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as driver:
        try:
            assert server.stderr is not None
            link = next(line.split()[1] for line in server.stderr if line.startswith("play: "))
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=VIEWPORT, bypass_csp=True)
            page.goto(link)
            with video_writer(out, FPS) as video:
                for key, frames in WALK:
                    page.keyboard.down(key)
                    for _ in range(frames):
                        video.append(film(page))
                    page.keyboard.up(key)
            browser.close()
        finally:
            server.terminate()


def film(page: Page) -> np.ndarray:
    """(1, H, W, 3) the page with its next frame."""
    shown = page.evaluate("Number(document.getElementById('picture').dataset.frames ?? -1)")
    page.wait_for_function(f"Number(document.getElementById('picture').dataset.frames ?? -1) > {shown}")
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return np.asarray(image.resize((WIDTH, WIDTH * image.height // image.width), Image.Resampling.LANCZOS))[None]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
