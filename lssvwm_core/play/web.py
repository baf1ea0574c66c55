"""The page: a Starlette app around a session, safe by default.

Only this machine is served unless the user names another address; then a random token, part of the printed link, is
asked for. Pages of other sites cannot connect (their Origin is not ours), nor reach us by a name that resolves here
(the Host is checked). Nothing of a request is ever used as a path.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from importlib import resources

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from lssvwm_core.play import messages
from lssvwm_core.play.session import Session, Viewer
from lssvwm_datasets.errors import LssvwmError

MAX_VIEWERS = 16
IN_FLIGHT = 2  # pictures sent that the viewer has not yet acknowledged
MESSAGES_A_SECOND, BURST = 50, 100
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MEDIA_TYPES = {"index.html": "text/html", "play.css": "text/css", "play.js": "text/javascript"}


class PlayApp:
    """Args:
    episodes: validation episodes that a viewer can start from.
    title: of the world, for the page.
    host: the address served at.
    token: asked for where not None; else only this machine's own names are answered to.
    """

    def __init__(self, session: Session, episodes: int, title: str, host: str, token: str | None) -> None:
        self.session, self.episodes, self.title, self.host, self.token = session, episodes, title, host, token
        self.viewers = 0
        static = resources.files("lssvwm_core.play") / "static"
        self.files = {name: (static / name).read_bytes() for name in MEDIA_TYPES}

    def starlette(self) -> Starlette:
        routes = [
            Route("/", self._file("index.html", guarded=True)),
            Route("/play.css", self._file("play.css")),
            Route("/play.js", self._file("play.js")),
            WebSocketRoute("/ws", self._play),
        ]
        hosts = [*LOOPBACK_NAMES, self.host]
        loopback = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
        return Starlette(routes=routes, middleware=[] if self.token else loopback)

    def _file(self, name: str, guarded: bool = False) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if guarded and not self._knows_token(request):
                return PlainTextResponse("open the link that lssvwm play printed\n", 403)
            return Response(self.files[name], media_type=MEDIA_TYPES[name], headers=HEADERS)

        return endpoint

    def _knows_token(self, connection: HTTPConnection) -> bool:
        given = connection.query_params.get("token", "")
        return self.token is None or secrets.compare_digest(given.encode(), self.token.encode())

    async def _play(self, websocket: WebSocket) -> None:
        origin, own = websocket.headers.get("origin"), websocket.headers.get("host")  # browsers always send both
        foreign = origin is not None and origin not in (f"http://{own}", f"https://{own}")
        if foreign or not self._knows_token(websocket) or self.viewers >= MAX_VIEWERS:
            await websocket.close(1008)
            return
        await websocket.accept()
        self.viewers += 1
        loop, news, room = asyncio.get_running_loop(), asyncio.Event(), _Room()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the server is shutting down
                loop.call_soon_threadsafe(news.set)

        viewer = Viewer(notify)
        sender = asyncio.create_task(self._send(websocket, viewer, news, room))
        self.session.join(viewer)
        try:
            await self._receive(websocket, viewer, room)
        except WebSocketDisconnect:
            pass
        finally:
            self.viewers -= 1
            self.session.leave(viewer)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender

    async def _send(self, websocket: WebSocket, viewer: Viewer, news: asyncio.Event, room: "_Room") -> None:
        header = self.session.game.world.header
        height, width = header.frame_size
        hello = {"actions": header.action_names, "height": height, "width": width, "title": self.title}
        hello |= {"episodes": self.episodes, "context": self.session.game.context, "rate": self.session.fps}
        await websocket.send_json({"hello": hello})
        scene = None
        while True:
            await room.enter()
            while (picture := viewer.take()) is None:
                if self.session.failure is not None:
                    await websocket.close(1011, "the simulation failed; see the terminal")
                    return
                news.clear()
                if not len(viewer):
                    await news.wait()
            if picture.status["scene"] != scene:
                scene, game = picture.status["scene"], self.session.game
                layout = None if game.layout is None else game.layout.tolist()
                path = list(game.path)
                await websocket.send_json({"scene": {"layout": layout, "path": path, "generated": game.generated}})
            answers = picture.answers[1] if picture.answers and picture.answers[0] is viewer else None
            await websocket.send_json({"status": picture.status | {"answers": answers}})
            await websocket.send_bytes(picture.png)

    async def _receive(self, websocket: WebSocket, viewer: Viewer, room: "_Room") -> None:
        allowance, before = float(BURST), time.monotonic()
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            now = time.monotonic()
            allowance = min(BURST, allowance + (now - before) * MESSAGES_A_SECOND) - 1
            before = now
            text = received.get("text") or ""
            if len(text) > messages.MAX_BYTES or len(received.get("bytes") or b"") > messages.MAX_BYTES:
                await websocket.close(1009, "message too long")
                return
            if allowance < 0:
                await websocket.close(1008, "too many messages")
                return
            message = messages.parse(text)
            if message == {"do": "seen"}:
                room.leave()
            elif message is not None:
                messages.obey(self.session, viewer, message)


class _Room:
    """For `IN_FLIGHT` pictures on their way: who does not say that they arrived gets no more."""

    def __init__(self) -> None:
        self._on_their_way = 0
        self._changed = asyncio.Event()

    async def enter(self) -> None:
        while self._on_their_way >= IN_FLIGHT:
            self._changed.clear()
            await self._changed.wait()
        self._on_their_way += 1

    def leave(self) -> None:
        self._on_their_way = max(0, self._on_their_way - 1)
        self._changed.set()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: LssvwmError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise LssvwmError(f"--host {host} --port {port}: {error}; choose another (--port 0: any free one)") from error


def link(host: str, port: int, token: str | None) -> str:
    address = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        address = socket.gethostname()
    return f"http://{address}:{port}/" + (f"?token={token}" if token else "")


def serve(app: PlayApp, listener: socket.socket) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        app.starlette(),
        log_level="warning",
        ws_max_size=16 * messages.MAX_BYTES,
        ws_max_queue=8,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])
