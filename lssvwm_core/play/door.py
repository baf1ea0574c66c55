"""Who may see and play: only this machine's own names, or whoever has the token; and only pages of known addresses.

Without a token the page answers to loopback names alone, so no other site can reach it by a name that resolves here.
With one, any name will do: a proxy may rewrite it. In both cases a page that connects must come from the address that
it asked for, or from an address that the user named with `--origin`.
"""

import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from starlette.requests import HTTPConnection

from lssvwm_datasets.errors import LssvwmError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HOST_HEADER = re.compile(r"\[?([a-z0-9.:_-]+?)\]?(:\d+)?", re.IGNORECASE)
LONGEST_SHOWN = 200  # characters of an address that a message repeats


@dataclass(frozen=True)
class Origin:
    """An address outside, as a browser sees it: "https://hub.example.org" and the path below which the page lies."""

    origin: str
    path: str = "/"

    @classmethod
    def parse(cls, address: str) -> "Origin":
        """Read an address such as https://hub.example.org/user/me/proxy/8765/. Raises: LssvwmError."""
        try:
            parts = urlsplit(address)
            name, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:
            parts, name, port = urlsplit(""), "", None
        extras = parts.query or parts.fragment or parts.username is not None or "{" in unquote(parts.path)
        if parts.scheme not in ("http", "https") or not name or extras:
            raise LssvwmError(
                f"--origin {address}: expected the address that the browser shows, up to a question mark, such as "
                "https://box-8765.example.dev or https://hub.example.org/user/me/proxy/8765/"
            )
        host = f"[{name}]" if ":" in name else name
        default = {"http": 80, "https": 443}[parts.scheme]
        netloc = host if port in (None, default) else f"{host}:{port}"  # browsers leave out the default port, too
        path = parts.path.strip("/")
        return cls(f"{parts.scheme}://{netloc}", f"/{path}/" if path else "/")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not served, in a sentence that says what to do, and the HTTP status that goes with it."""

    status: int
    reason: str


class Door:
    """Lets in or refuses.

    Attributes:
        host: the address served at.
        origins: the addresses outside, in front of a proxy, that the user named.
        public: everyone may come in, by any name, and pages of the hub may show the page within theirs.
        token: must be part of the link unless it is None, as at a loopback address without `origins`.
    """

    def __init__(self, host: str, origins: Sequence[Origin] = (), public: bool = False) -> None:
        self.host, self.origins, self.public = host, tuple(origins), public
        self.token = None if public or (is_loopback(host) and not origins) else secrets.token_urlsafe(16)

    def refuses(self, connection: HTTPConnection) -> Refusal | None:
        """Why a request gets nothing at all: it came by a strange name. With a token, any name will do."""
        host = connection.headers.get("host", "")
        match = HOST_HEADER.fullmatch(host)
        if self.public or self.token is not None or (match and match[1].lower() in (*LOOPBACK_NAMES, self.host)):
            return None
        return Refusal(
            400,
            f"lssvwm play was asked for as {host[:LONGEST_SHOWN]!r}, and answers to this machine's own names only.\n"
            "Behind a proxy, start it with the address that the browser shows, path included, and open the link that "
            f"it prints:\nlssvwm play --origin https://{host[:LONGEST_SHOWN]}/",
        )

    def refuses_guest(self, connection: HTTPConnection) -> Refusal | None:
        """Why a request may not see the page: beside the above, it does not know the token."""
        given = connection.query_params.get("token", "")
        if self.token is None or secrets.compare_digest(given.encode(), self.token.encode()):
            return self.refuses(connection)
        return Refusal(
            403,
            "This link has no token, or one of an earlier start. Open the link that lssvwm play printed; "
            "it ends in ?token=…",
        )

    def refuses_page(self, connection: HTTPConnection, page: str | None) -> Refusal | None:
        """Why a page may not connect: beside the above, it is from elsewhere.

        `page` is the address of the page, or its origin as browsers send it; None for a program that is no browser.
        """
        own = connection.headers.get("host", "")
        known = {f"http://{own}", f"https://{own}", *(origin.origin for origin in self.origins)}
        if page is None or origin_of(page) in known:
            return self.refuses_guest(connection)
        return self.refuses_guest(connection) or Refusal(
            403,
            "This page was opened at an address that lssvwm play does not know. If it is your own, start it anew:\n"
            f"lssvwm play --origin {page[:LONGEST_SHOWN]}\nand open the link that it prints.",
        )

    def links(self, port: int) -> list[str]:
        """The addresses to open: the one served at, then those outside."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        address = f"[{name}]" if ":" in name else name
        query = f"?token={self.token}" if self.token else ""
        return [f"http://{address}:{port}/{query}", *(f"{each.origin}{each.path}{query}" for each in self.origins)]


def origin_of(page: str) -> str:
    """Scheme, name and port of an address, as a browser's Origin header has them; empty for what is none."""
    match = re.match(r"https?://[^/?#\\@\s]+(?=[/?#]|$)", page)
    return match[0] if match else ""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
