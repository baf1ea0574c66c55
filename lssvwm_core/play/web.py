"""The page: a Starlette app around a session. Who gets in is the door's business.

The page's links are relative, so it works below any path; a path that a proxy does not take off is one of the door's.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from lssvwm_core.play import messages
from lssvwm_core.play.door import Door, Refusal
from lssvwm_core.play.session import Picture, Session, Viewer

MAX_VIEWERS = 16
IN_FLIGHT = 2  # pictures sent that the viewer has not yet acknowledged
MESSAGES_A_SECOND, BURST = 50, 100
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Connection": "close",
}
FRAMED_BY = "https://huggingface.co https://*.hf.space"  # pages of the hub, which show a Space within theirs
MEDIA_TYPES = {"index.html": "text/html", "play.css": "text/css", "play.js": "text/javascript"}


class PlayApp:
    """The page of a session, and the WebSockets of those who have it open.

    Args:
        episodes: how many validation episodes a viewer can start from.
        title: the world's name, for the page.
        door: who is let in.
    """

    def __init__(self, session: Session, episodes: int, title: str, door: Door) -> None:
        self.session, self.episodes, self.title, self.door = session, episodes, title, door
        self.viewers = 0
        static = resources.files("lssvwm_core.play") / "static"
        framed = HEADERS["Content-Security-Policy"].replace("'none'", FRAMED_BY)
        self.headers = HEADERS | ({"Content-Security-Policy": framed} if door.public else {})
        self.files = {name: (static / name).read_bytes() for name in MEDIA_TYPES}

    def starlette(self) -> Starlette:
        routes: list[BaseRoute] = [
            Route("/", self._file("index.html", self.door.refuses_guest)),
            Route("/play.css", self._file("play.css", self.door.refuses)),
            Route("/play.js", self._file("play.js", self.door.refuses)),
            Route("/refused", self._why_refused),
            WebSocketRoute("/ws", self._play),
        ]
        paths = {origin.path.rstrip("/") for origin in self.door.origins} - {""}
        app = Starlette(routes=[*routes, *(Mount(unquote(path), routes=routes) for path in sorted(paths))])
        app.router.redirect_slashes = False  # to an address that a proxy may have made up
        return app

    def _file(
        self, name: str, refuses: Callable[[HTTPConnection], Refusal | None]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if refusal := refuses(request):
                return PlainTextResponse(f"{refusal.reason}\n", refusal.status, self.headers)
            return Response(self.files[name], media_type=MEDIA_TYPES[name], headers=self.headers)

        return endpoint

    async def _why_refused(self, request: Request) -> Response:
        """Tell a page what its WebSocket was refused for, which browsers keep from it; null when it is welcome."""
        refusal = self._refuses_viewer(request, request.query_params.get("page", ""))
        return JSONResponse({"reason": refusal and refusal.reason}, headers=self.headers)

    def _refuses_viewer(self, connection: HTTPConnection, page: str | None) -> Refusal | None:
        if refusal := self.door.refuses_page(connection, page):
            return refusal
        if self.viewers >= MAX_VIEWERS:
            return Refusal(503, f"{MAX_VIEWERS} viewers are here, and more are not served; this page tries again.")
        return None

    async def _play(self, websocket: WebSocket) -> None:
        if self._refuses_viewer(websocket, websocket.headers.get("origin")):  # browsers always send it
            await websocket.close(1008)  # seen as a 403; the page asks /refused for the reason
            return
        self.viewers += 1
        try:
            await websocket.accept()
            await self._serve(websocket)
        finally:
            self.viewers -= 1

    async def _serve(self, websocket: WebSocket) -> None:
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
            self.session.leave(viewer)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender

    async def _send(self, websocket: WebSocket, viewer: Viewer, news: asyncio.Event, room: "_Room") -> None:
        await websocket.send_json({"hello": self._hello()})
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
                scene = picture.status["scene"]
                await websocket.send_json({"scene": self._scene(picture)})
            answers = picture.answers[1] if picture.answers and picture.answers[0] is viewer else None
            await websocket.send_json({"status": picture.status | {"answers": answers}})
            await websocket.send_bytes(picture.png)

    @staticmethod
    def _scene(picture: Picture) -> dict[str, Any]:
        """What a map needs after a jump; from then on the viewer adds to the path."""
        layout, path = picture.place.layout, picture.place.path
        recorded = max(0, len(path) - picture.status["generated"])
        return {"layout": None if layout is None else layout.tolist(), "path": path.tolist(), "recorded": recorded}

    def _hello(self) -> dict[str, Any]:
        """What does not change while the game lasts."""
        game = self.session.game
        header = game.world.header
        height, width = header.frame_size
        return {
            "title": self.title,
            "height": height,
            "width": width,
            "actions": game.moves,
            "keys": game.keys,
            "episodes": self.episodes,
            "context": game.context,
            "rate": self.session.fps,
        }

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
            if isinstance(message, messages.Seen):
                room.leave()
            elif message is not None:
                messages.obey(self.session, viewer, message)


class _Room:
    """Room for `IN_FLIGHT` pictures that are on their way; a viewer that does not acknowledge them is sent no more."""

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
