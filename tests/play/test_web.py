"""The page as strangers meet it: who gets in, what garbage does, and that nobody slows the others."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from lssvwm_core.play.session import QUEUE, Session
from lssvwm_datasets.errors import LssvwmError

pytest.importorskip("uvicorn", reason="the extra `play` is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="the extra `dev` is not installed")
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from lssvwm_core.play import web  # noqa: E402
from lssvwm_core.play.door import Door, Origin, is_loopback  # noqa: E402
from lssvwm_core.play.messages import MAX_BYTES  # noqa: E402

WS = "ws://127.0.0.1:8765/ws"
PNG = b"\x89PNG\r\n"


@pytest.fixture
def app(session: Session) -> web.PlayApp:
    return web.PlayApp(session, 1, "test", Door("127.0.0.1"))


@pytest.fixture
def client(app: web.PlayApp) -> Any:
    return testclient.TestClient(app.starlette(), base_url="http://127.0.0.1:8765")


def say(socket: Any, **message: Any) -> None:
    socket.send_text(json.dumps(message))


def picture(socket: Any, wanted: Callable[[dict[str, Any]], bool] = lambda status: True) -> dict[str, Any]:
    """The status of the next picture that is `wanted`; each is acknowledged."""
    for _ in range(200):
        message = socket.receive_json()
        if status := message.get("status"):
            assert socket.receive_bytes().startswith(PNG)
            say(socket, do="seen")
            if wanted(status):
                return status
    raise AssertionError("no such picture")


def closed_with(socket: Any) -> int:
    for _ in range(200):
        if (message := socket.receive())["type"] == "websocket.close":
            return message["code"]
    raise AssertionError("still open")


def test_the_page_and_nothing_else(client: Any) -> None:
    for path, kind in (("/", "text/html"), ("/play.js", "text/javascript"), ("/play.css", "text/css")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path in ("/play.py", "/static/play.js", "/../pyproject.toml", "/%2e%2e/web.py", "//etc/passwd", "/ws"):
        assert client.get(path).status_code == 404


def test_playing(client: Any) -> None:
    with client.websocket_connect(WS) as socket:
        assert socket.receive_json()["hello"]["actions"][1] == "forward"
        scene = socket.receive_json()["scene"]
        assert len(scene["layout"]) == 9
        assert len(scene["path"]) >= 20
        picture(socket)
        say(socket, do="key", action=2, stamp=12.5)
        assert picture(socket, lambda status: status["answers"] is not None)["answers"] == 12.5
        say(socket, do="set", name="cut_memory", value=True)
        say(socket, do="set", name="steps", value=1)
        say(socket, do="set", name="seed", value=7)
        changed = picture(socket, lambda status: status["seed"] == 7)
        assert (changed["cut_memory"], changed["steps"]) == (True, 1)
        say(socket, do="save", slot="here")
        picture(socket, lambda status: status["slots"] == ["here"])
        say(socket, do="branch", slot="here")
        picture(socket, lambda status: "is taken" in status["notice"])
        say(socket, do="load", slot="here")
        scene = picture(socket, lambda status: status["notice"] == "back at here")["scene"]
        say(socket, do="restart", episode=0, frame=100)
        assert picture(socket, lambda status: status["scene"] > scene)["frames_seen"] >= 20
        say(socket, do="load", slot="../../etc/passwd")
        picture(socket, lambda status: "1 to 32" in status["notice"])


GARBAGE: tuple[str | bytes, ...] = (
    "",
    "no json",
    "[" * 400,
    "null",
    "[]",
    '{"do": 1}',
    '{"do": "close"}',
    '{"do": "__class__"}',
    '{"do": "key", "action": "left", "stamp": 1}',
    '{"do": "key", "action": true, "stamp": 1}',
    '{"do": "key", "action": -1, "stamp": 1}',
    '{"do": "key", "action": 1000, "stamp": 1}',
    '{"do": "key", "action": 1, "stamp": NaN}',
    '{"do": "key", "action": 1, "stamp": 1' + "0" * 400 + "}",
    '{"do": "set", "name": "steps", "value": 100000}',
    '{"do": "set", "name": "steps", "value": true}',
    '{"do": "set", "name": "world", "value": true}',
    '{"do": "set", "name": "cut_memory", "value": 1}',
    '{"do": "restart", "episode": 0.5, "frame": 0}',
    '{"do": "save", "slot": ["a"]}',
    b"\x00\xff\xfe",
)


def test_garbage_does_nothing(client: Any, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.websocket_connect(WS) as socket:
        before = picture(socket)
        commands: list[object] = []
        monkeypatch.setattr(session, "submit", commands.append)
        monkeypatch.setattr(session, "press", lambda viewer, action, stamp: commands.append(action))
        for garbage in GARBAGE:
            socket.send({"type": "websocket.receive", "bytes" if isinstance(garbage, bytes) else "text": garbage})
        after = picture(socket, lambda status: status["frames"] > before["frames"] + 3)
    assert commands == [-1, 1000], "which are no actions: the session ignores them"
    for name in ("steps", "seed", "cut_memory", "actions_only", "recording", "slots", "scene", "notice"):
        assert after[name] == before[name]


def test_too_long_and_too_many_messages_end_the_connection(client: Any, app: web.PlayApp) -> None:
    with client.websocket_connect(WS) as socket:
        socket.send_text("x" * (MAX_BYTES + 1))
        assert closed_with(socket) == 1009
    with client.websocket_connect(WS) as socket:
        for _ in range(2 * web.BURST):
            socket.send_text("{}")
        assert closed_with(socket) == 1008
    with client.websocket_connect(WS) as socket:
        picture(socket)
    assert app.viewers == 0


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (None, True),
        ("http://127.0.0.1:8765", True),
        ("http://127.0.0.1:9999", False),
        ("https://evil.example", False),
        ("http://127.0.0.1:8765.evil.example", False),
        ("null", False),
        ("http://[127.0.0.1:8765", False),
    ],
)
def test_pages_of_other_sites_are_refused(client: Any, origin: str | None, welcome: bool) -> None:
    headers = {"origin": origin} if origin else {}
    if welcome:
        with client.websocket_connect(WS, headers=headers) as socket:
            picture(socket)
    else:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(WS, headers=headers):
            pass


def test_names_that_others_point_here_are_refused(client: Any) -> None:
    for path in ("/", "/play.js", "/play.css", "/?token="):
        refused = client.get(path, headers={"host": "evil.example"})
        assert refused.status_code == 400
        assert "lssvwm play --origin https://evil.example/" in refused.text
    for host in ("", "127.0.0.1.evil.example", "evil.example:8765", "127.0.0.1@evil.example", "[::1", "127.0.0.1:x"):
        assert client.get("/", headers={"host": host}).status_code == 400
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://evil.example/ws"):
        pass
    assert client.get("/", headers={"host": "[::1]:8765"}).status_code == 200


def test_another_address_asks_for_the_token(session: Session) -> None:
    door = Door("192.0.2.1")
    client = testclient.TestClient(web.PlayApp(session, 1, "test", door).starlette(), base_url="http://192.0.2.1:8765")
    assert door.token is not None
    for query in ("", "?token=", "?token=wrong", "?token=sécret", f"?token={door.token}2", f"?token={door.token[:-1]}"):
        refused = client.get(f"/{query}")
        assert refused.status_code == 403
        assert "Open the link that lssvwm play printed" in refused.text
        assert client.get(f"/refused{query}").json()["reason"].startswith("This link has no token")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{WS}{query}"):
            pass
    assert client.get(f"/?token={door.token}").status_code == 200
    with client.websocket_connect(f"{WS}?token={door.token}") as socket:
        picture(socket)


OUTSIDE = "https://hub.example.org"
PATH = "/user/me@example.org/proxy/8765"


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:9000", "hub.example.org", "10.0.0.7:8765"])
@pytest.mark.parametrize("below", ["", PATH])
def test_behind_a_proxy_that_keeps_or_changes_the_name_and_the_path(session: Session, host: str, below: str) -> None:
    door = Door(
        "127.0.0.1", [Origin.parse(f"{OUTSIDE}/user/me%40example.org/proxy/8765/"), Origin.parse("http://b:80")]
    )
    client = testclient.TestClient(web.PlayApp(session, 1, "test", door).starlette(), base_url=f"http://{host}")
    query = f"?token={door.token}"
    for path in ("/", "/play.css", "/play.js"):
        assert client.get(f"{below}{path}{query}").status_code == 200
    assert client.get(f"{below}/").status_code == 403
    assert client.get("/user/you/proxy/8765/").status_code == 404
    for origin, welcome in ((OUTSIDE, True), ("http://b", True), ("https://evil.example", False), ("null", False)):
        why = client.get(f"{below}/refused{query}&page={origin}{PATH}/").json()["reason"]
        assert (why is None) == welcome
        address = f"ws://{host}{below}/ws{query}"
        if welcome:
            with client.websocket_connect(address, headers={"origin": origin}) as socket:
                picture(socket)
        else:
            assert f"lssvwm play --origin {origin}{PATH}/" in why
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(address, headers={"origin": origin}):
                pass
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"ws://{host}/ws", headers={"origin": OUTSIDE}):
        pass


def test_links_of_the_door() -> None:
    assert Door("::1").links(80) == ["http://[::1]:80/"]
    door = Door("192.168.1.4", [Origin.parse(f"{OUTSIDE}{PATH}")])
    assert door.links(80) == [f"http://192.168.1.4:80/?token={door.token}", f"{OUTSIDE}{PATH}/?token={door.token}"]
    assert Door("127.0.0.1").token is None
    assert Door("0.0.0.0").token != Door("0.0.0.0").token


@pytest.mark.parametrize(
    ("address", "origin", "path"),
    [
        ("https://Box.example.dev", "https://box.example.dev", "/"),
        ("https://box.example.dev:443/", "https://box.example.dev", "/"),
        ("http://box.example.dev:8080/a//", "http://box.example.dev:8080", "/a/"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example", "/x/"),
        ("https://[2001:db8::1]:8765", "https://[2001:db8::1]:8765", "/"),
    ],
)
def test_an_origin_is_what_the_browser_sends(address: str, origin: str, path: str) -> None:
    assert Origin.parse(address) == Origin(origin, path)


@pytest.mark.parametrize(
    "address",
    ["", "box.example.dev", "ftp://a", "https://", "https://a?b", "https://a#b", "https://me:pw@a", "https://a:x",
     "https://[::1", "https://a..b", "https://a/user/{me}/", "javascript:alert(1)", "*"],
)  # fmt: skip
def test_no_origin(address: str) -> None:
    with pytest.raises(LssvwmError, match="--origin"):
        Origin.parse(address)


def test_two_see_the_same_and_a_silent_one_gets_few(client: Any, app: web.PlayApp, session: Session) -> None:
    with client.websocket_connect(WS) as one, client.websocket_connect(WS) as silent:
        first = picture(one, lambda status: status["viewers"] == 2)["frames"]
        picture(one, lambda status: status["frames"] > first + 3 * QUEUE)
        assert app.viewers == 2
        say(one, do="save", slot="mark")
        picture(one, lambda status: status["slots"] == ["mark"])
        received = [silent.receive() for _ in range(2 + 2 * web.IN_FLIGHT)]  # hello, scene, pictures
        assert sum("bytes" in message and message["bytes"] is not None for message in received) == web.IN_FLIGHT
        say(silent, do="seen")
        status = json.loads(silent.receive()["text"])["status"]
        assert status["frames"] > first + QUEUE, "the newest, not the oldest"
    deadline = time.monotonic() + 10
    while app.viewers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not app.viewers


def test_not_more_viewers_than_can_be_served(client: Any, app: web.PlayApp) -> None:
    app.viewers = web.MAX_VIEWERS
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(WS):
        pass


def test_addresses_of_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "example.org", "localhost.evil.example")))
