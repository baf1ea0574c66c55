"""`lssvwm play` as users see it: the command's own server, and Debian's Chromium in front of it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lssvwm_datasets.sources import sample_recordings
from tests.play.conftest import Serve, stop

pytest.importorskip("uvicorn", reason="the extra `play` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
    server, link = serve()
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
    server, link = serve()
    page = open_page(browser, link)
    stop(server)
    page.wait_for_function("document.getElementById('link').textContent !== 'live'")
    port = re.search(r":(\d+)/", link)
    assert port is not None
    again, _ = serve("--port", port[1])
    page.wait_for_function("document.getElementById('link').textContent === 'live'")
    page.wait_for_function("Number(document.getElementById('frames').textContent) < 10")
    wait_frames(page)
    assert page.errors == []
    page.close()
    stop(again)


def test_touch(browser: Any, serve: Serve) -> None:
    _, link = serve()
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
    code = "import sys, pathlib, play_gif; play_gif.FRAMES = 3; "
    code += "play_gif.main(pathlib.Path(sys.argv[1]), 'test', pathlib.Path(sys.argv[2]))"
    docs = Path(__file__).parents[2] / "docs"
    environment = os.environ | {"PYTHONPATH": f"{docs}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "play.gif"
    (recording,) = (sample_recordings() / "eval").iterdir()
    command = [sys.executable, "-c", code, str(out), str(recording)]
    subprocess.run(command, cwd=workspace, env=environment, check=True, timeout=120)
    with Image.open(out) as gif:
        assert (gif.n_frames, gif.width) == (3, 390)


class Proxy:
    """A reverse proxy as notebooks and clouds have them: its own address and path outside, the server's inside."""

    PATH = "/user/me/proxy/8765"

    def __init__(self, keeps_path: bool, websockets: bool = True) -> None:
        self.keeps_path, self.websockets = keeps_path, websockets
        self.target = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}{self.PATH}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=self.listener.accept()[:1], daemon=True).start()

    def _serve(self, outside: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := outside.recv(65536)):
            head += data
        request, _, rest = head.decode().partition("\r\n")
        if not self.keeps_path:
            request = request.replace(self.PATH, "", 1)
        if not self.websockets:
            rest = re.sub(r"(?im)^(upgrade|connection):.*\r\n", "", rest)
        rest = re.sub(r"(?im)^host:.*\r\n", f"Host: localhost:{self.target}\r\n", rest)
        with contextlib.suppress(OSError):
            inside = socket.create_connection(("127.0.0.1", self.target))
            inside.sendall(f"{request}\r\n{rest}".encode())
            threading.Thread(target=self._pump, args=(outside, inside), daemon=True).start()
            self._pump(inside, outside)
        outside.close()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("keeps_path", [False, True])
def test_behind_a_proxy(browser: Any, serve: Serve, keeps_path: bool) -> None:
    proxy = Proxy(keeps_path)
    server, link = serve("--origin", proxy.address, "--origin", "https://other.example.org")
    proxy.target = int(re.findall(r":(\d+)/", link)[0])
    assert server.stderr is not None
    outside = server.stderr.readline().split()[1]
    assert outside.startswith(f"{proxy.address}?token=")
    page = open_page(browser, outside)
    assert page.text_content("#link") == "live"
    page.keyboard.down("w")
    page.wait_for_function("/^\\d+$/.test(document.getElementById('latency').textContent)")
    page.close()
    page = browser.new_page()
    page.goto(proxy.address)
    assert "Open the link that lssvwm play printed" in page.text_content("body")
    page.close()
    proxy.listener.close()
    stop(server)


def test_what_a_proxy_that_nobody_named_is_told(browser: Any, serve: Serve) -> None:
    proxy = Proxy(keeps_path=False)
    server, link = serve()
    proxy.target = int(re.findall(r":(\d+)/", link)[0])
    page = browser.new_page(bypass_csp=True)
    page.goto(proxy.address)
    page.wait_for_function("document.getElementById('link').textContent === 'refused'")
    assert f"lssvwm play --origin {proxy.address}\nand open the link" in page.text_content("#notice")
    page.close()
    proxy.listener.close()
    stop(server)


def test_a_proxy_that_lets_no_websocket_pass(browser: Any, serve: Serve) -> None:
    proxy = Proxy(keeps_path=False, websockets=False)
    server, link = serve("--origin", proxy.address)
    proxy.target = int(re.findall(r":(\d+)/", link)[0])
    page = browser.new_page(bypass_csp=True)
    page.goto(f"{proxy.address}?{link.partition('?')[2]}")
    page.wait_for_function("document.getElementById('link').textContent === 'no WebSocket'")
    assert "has to let WebSockets pass" in page.text_content("#notice")
    page.close()
    proxy.listener.close()
    stop(server)
