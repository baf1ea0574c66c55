"""The server below the page: a listening socket, and connections that cannot keep others out.

A connection asks one thing, within seconds; only a viewer's WebSocket stays. Whoever opens many and says nothing loses
the oldest of them to the next that comes, so a viewer, who asks at once, always gets in.
"""

import asyncio
import functools
import socket
from collections import OrderedDict
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from lssvwm_datasets.errors import LssvwmError

MAX_WAITING = 64  # connections that have not asked yet; well below the 256 open files of a small machine
REQUEST_SECONDS = 10.0  # for a request to come and be answered


class Entrance:
    """The connections that are no WebSocket yet, the oldest first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[asyncio.Transport, asyncio.TimerHandle] = OrderedDict()

    def enter(self, transport: asyncio.Transport) -> None:
        while len(self._waiting) >= MAX_WAITING:
            self._end(next(iter(self._waiting)))
        self._waiting[transport] = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._end, transport)

    def leave(self, transport: asyncio.Transport) -> None:
        if transport in self._waiting:
            self._waiting.pop(transport).cancel()

    def _end(self, transport: asyncio.Transport) -> None:
        self.leave(transport)
        transport.abort()


class WaitingProtocol(H11Protocol):
    """uvicorn's HTTP, where a connection counts as waiting until it ends or becomes a WebSocket."""

    def __init__(self, entrance: Entrance, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._entrance = entrance

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._entrance.enter(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._entrance.leave(self.transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._entrance.leave(self.transport)
        super().connection_lost(error)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: LssvwmError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise LssvwmError(f"--host {host} --port {port}: {error}; choose another (--port 0: any free one)") from error


def make_server(app: Starlette, message_bytes: int) -> uvicorn.Server:
    """A server, to run with a listener; no message of a viewer may be longer than `message_bytes`."""
    config = uvicorn.Config(
        app,
        log_level="error",  # warnings tell of every stranger who sends garbage
        http=functools.partial(WaitingProtocol, Entrance()),  # type: ignore[arg-type]
        proxy_headers=False,
        backlog=MAX_WAITING,
        ws_max_size=message_bytes,
        ws_max_queue=8,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
