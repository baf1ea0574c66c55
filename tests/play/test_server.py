"""A page that many strangers hold connections to stays open for those who come to play."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("uvicorn", reason="the extra `play` is not installed")
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from lssvwm_core.play import server
from tests.play.conftest import Serve, stop

HALF_OPEN = 300
BEGINNINGS = (b"", b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)


@pytest.fixture
def port() -> Iterator[int]:
    """A server of "/" and of a WebSocket that echoes."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    routes = [Route("/", lambda request: PlainTextResponse("here")), WebSocketRoute("/ws", echo)]
    listener = server.listen("127.0.0.1", 0)
    running = server.make_server(Starlette(routes=routes), 100)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join()
    listener.close()


def half_open(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    """Connections that begin to ask and do not go on."""
    opened = []
    for number in range(count):
        opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)))
        opened[-1].sendall(BEGINNINGS[number % len(BEGINNINGS)])
    return opened


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def wait_closed(connections: list[socket.socket], left: int) -> None:
    deadline = time.monotonic() + 20
    while sum(map(is_open, connections)) > left:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_oldest_that_say_nothing_make_room(port: int) -> None:
    with ExitStack() as stack, connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        waiting = half_open(stack, port, HALF_OPEN)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() == b"here"
        wait_closed(waiting, server.MAX_WAITING)
        assert is_open(waiting[-1])
        viewer.send("still here")
        assert viewer.recv(10) == "still here"


def test_who_asks_nothing_in_time_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    with ExitStack() as stack, connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        waiting = half_open(stack, port, 8)
        while is_open(waiting[1]):  # a byte now and then does not help
            with contextlib.suppress(ConnectionError):
                waiting[1].sendall(b"x")
            time.sleep(0.02)
        wait_closed(waiting, 0)
        viewer.send("still here")
        assert viewer.recv(10) == "still here"


def test_playing_while_hundreds_of_connections_hang(serve: Serve) -> None:
    running, link = serve("--host", "0.0.0.0", open_files=256)
    found = re.search(r":(\d+)/(\?token=\S+)", link)
    assert found is not None
    port, query = int(found[1]), found[2]
    with ExitStack() as stack:
        half_open(stack, port, HALF_OPEN)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/{query}", timeout=10).read().decode()
        assert "<canvas" in page
        with connect(f"ws://127.0.0.1:{port}/ws{query}", open_timeout=10) as viewer:
            assert "hello" in json.loads(viewer.recv(10))
            half_open(stack, port, HALF_OPEN)
            while not isinstance(viewer.recv(10), bytes):
                pass
    stop(running)
