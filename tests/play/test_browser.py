"""`lssvwm play` as users see it: the command's own server, and Debian's Chromium in front of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import CLI

pytest.importorskip("uvicorn", reason="the extra `play` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")

Serve = Callable[[int], tuple[subprocess.Popen[str], str]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def serve(workspace: Path, tmp_path: Path) -> Iterator[Serve]:
    """Run the command at a port; returns it with its printed link."""
    running: list[subprocess.Popen[str]] = []

    def start(port: int = 0) -> tuple[subprocess.Popen[str], str]:
        options = ["--port", str(port), "--context", "20", "--steps", "1", "--slots", str(tmp_path / "slots")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [*CLI, "play", "test", *options]
        server = subprocess.Popen(command, cwd=workspace, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(server)
        assert server.stderr is not None
        for line in server.stderr:
            if line.startswith("play: "):
                return server, line.split()[1]
        raise AssertionError("the server ended")

    yield start
    for server in running:
        if server.poll() is None:
            stop(server)


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGINT)
    assert server.stderr is not None
    assert "Traceback" not in server.communicate(timeout=30)[1]


def open_page(browser: Any, link: str) -> Any:
    page = browser.new_page(bypass_csp=True)  # for wait_for_function
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(link)
    page.wait_for_selector("#picture[data-frames]")
    return page


def frames(page: Any) -> int:
    return int(page.get_attribute("#picture", "data-frames"))


def wait_frames(page: Any, count: int = 2) -> None:
    page.wait_for_function(f"Number(document.getElementById('picture').dataset.frames) >= {frames(page) + count}")


def pixels(page: Any) -> str:
    return page.evaluate("document.getElementById('picture').toDataURL()")


def test_playing_in_a_browser(browser: Any, serve: Serve, tmp_path: Path) -> None:
    server, link = serve(0)
    page = open_page(browser, link)
    assert page.text_content("#link") == "live"
    assert page.text_content("#title") == "test, step 4"
    assert page.text_content("#steps-shown") == "1"
    assert page.is_visible("#map")
    before, drawn = pixels(page), page.evaluate("document.getElementById('map').toDataURL()")

    page.keyboard.down("w")
    page.keyboard.down("ArrowLeft")
    assert "on" in page.get_attribute("[data-action=forward_left]", "class")
    page.wait_for_function("/^\\d+$/.test(document.getElementById('latency').textContent)")
    wait_frames(page)
    page.keyboard.up("w")
    page.keyboard.up("ArrowLeft")
    assert pixels(page) != before
    assert page.evaluate("document.getElementById('map').toDataURL()") != drawn

    page.check("#cut_memory")
    page.wait_for_function("document.getElementById('flags').textContent.includes('memory cut')")
    page.fill("#slot", "by-the-door")
    page.click("[data-slot=save]")
    page.wait_for_selector("#slots button")
    page.keyboard.press("w")
    assert [path.name for path in (tmp_path / "slots").iterdir()] == ["by-the-door.safetensors"]
    page.click("#slots button")
    page.wait_for_function("document.getElementById('notice').textContent === 'back at by-the-door'")

    other = open_page(browser, link)
    page.wait_for_function("document.getElementById('viewers').textContent === '2'")
    page.evaluate("socket.send('garbage'); socket.send(new Uint8Array([0, 255])); say({do: 'restart', frame: []})")
    wait_frames(page)
    wait_frames(other)
    assert abs(frames(page) - frames(other)) <= 2
    assert page.is_checked("#cut_memory")
    assert page.errors == other.errors == []
    other.close()
    page.wait_for_function("document.getElementById('viewers').textContent === '1'")
    page.close()
    stop(server)


def test_the_page_comes_back_with_the_server(browser: Any, serve: Serve) -> None:
    server, link = serve(0)
    page = open_page(browser, link)
    stop(server)
    page.wait_for_function("document.getElementById('link').textContent !== 'live'")
    port = re.search(r":(\d+)/", link)
    assert port is not None
    again, _ = serve(int(port[1]))
    page.wait_for_function("document.getElementById('link').textContent === 'live'")
    page.wait_for_function("Number(document.getElementById('frames').textContent) < 10")
    wait_frames(page)
    assert page.errors == []
    page.close()
    stop(again)


def test_touch(browser: Any, serve: Serve) -> None:
    _, link = serve(0)
    page = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844}, bypass_csp=True).new_page()
    page.goto(link)
    page.wait_for_selector("#picture[data-frames]")
    page.tap("[data-action=left]")
    page.wait_for_function("/^\\d+$/.test(document.getElementById('latency').textContent)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    started = time.monotonic()
    page.context.close()
    assert time.monotonic() - started < 10


def test_the_film_for_the_readme(workspace: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib, play_gif; play_gif.WALK = (('w', 2), ('a', 1)); "
    code += "play_gif.main(pathlib.Path(sys.argv[1]), 'test')"
    docs = Path(__file__).parents[2] / "docs"
    environment = os.environ | {"PYTHONPATH": f"{docs}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "play.gif"
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=workspace, env=environment, check=True, timeout=120)
    with Image.open(out) as gif:
        assert (gif.n_frames, gif.width) == (3, 600)
