"""What every server of foresweep asks of a request: host, origin, token, and the headers it adds.

A page on another site must not read or change what is served here, by a form, a script or a name
that is made to point at this machine (DNS rebinding). So a request needs a Host that is ours, an
Origin that is ours where it names one, and the token where there is one; what changes something
needs an Origin and the CSRF word of the page it was sent from.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlencode, urlsplit

from foresweep.errors import MissingExtra, UsageError

LOOKS = {"pages.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
"""How every page of ours looks, whichever server shows it, and the type it is sent as."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "foresweep_token"


@cache
def look(name: str) -> bytes:
    """The file of LOOKS. Raises KeyError."""
    if name not in LOOKS:
        raise KeyError(name)
    return (resources.files("foresweep") / "reporting" / "static" / name).read_bytes()


LOOPBACK = ("localhost", "127.0.0.1", "::1")
READS = ("GET", "HEAD")
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""plotly adds one empty style element and fills it by rules; it also sets style attributes."""
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src-elem 'self' {EMPTY_STYLE}; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


def is_loopback(host: str) -> bool:
    """Does this name or address mean this machine alone?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask, and what for."""

    host: str = "127.0.0.1"  # what the server is bound to
    token: str | None = None
    is_read_only: bool = False
    is_api: bool = False  # programs ask, which have no page of ours: a POST needs no Origin
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def allows_host(self, header: str) -> bool:
        """Is the Host of a request one of ours? Beyond loopback an address is, too: only a name
        can be made to point elsewhere."""
        name = _name(header)
        if name in LOOPBACK or name == self.host:
            return True
        if is_loopback(self.host):
            return False
        own = {socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in own or _is_address(name)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Was a request sent by a page of this very server?"""
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def knows(self, given: str | None) -> bool:
        """Is this the token, where one is needed?"""
        return self.token is None or hmac.compare_digest(
            (given or "").encode(), self.token.encode()
        )

    def accepts(self, word: str) -> bool:
        """Is this the CSRF word of a page of ours?"""
        return hmac.compare_digest(word.encode(), self.csrf.encode())


def guard_for(host: str, token: str | None, *, is_read_only: bool, is_api: bool = False) -> Guard:
    """The guard of a server bound to `host`; beyond loopback a token is made where none is given.
    Raises UsageError for a token that is short."""
    if token is not None and len(token) < 16:
        raise UsageError("--token: give 16 characters or more, or none and one is made")
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    return Guard(host, token, is_read_only, is_api)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises UsageError where that is taken or not ours."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    # by this protocol asyncio knows it for TCP and sends at once: an answer in two parts waited
    # 40 ms for the caller's acknowledgement of the first
    found = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)  # whoever calls before the first answer waits for it
    except OSError as error:
        found.close()
        raise UsageError(
            f"--host {host} --port {port}: {error.strerror or error}; give another, or --port 0 "
            f"for any free one"
        ) from error
    return found


def place_of(host: str, listening: socket.socket) -> str:
    """The address as a browser on this machine writes it."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"


def serve(app: App, listening: socket.socket, *, grace_s: int = 1) -> None:
    """Serve until Ctrl-C or SIGTERM; what is being answered then has `grace_s` to end. Raises
    MissingExtra."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("uvicorn", "web") from error
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=grace_s, lifespan="on",
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


@dataclass(frozen=True, slots=True)
class Guarded:
    """An ASGI application behind a guard."""

    app: App
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[-1]
        if self.guard.token is not None and given is not None and self.guard.knows(given):
            await _answer(send, 303, "", _welcome(scope, given))
            return
        await self.app(scope, receive, _dressed(send))

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and words where a request may not pass."""
        guard, host, origin = self.guard, headers.get("host", ""), headers.get("origin")
        if not guard.allows_host(host):
            return 403, "this Host is not served here"
        if origin is not None and not guard.allows_origin(origin, host):
            return 403, "this Origin may ask nothing here"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = (query.get("token", [""])[-1], bearer, _cookie(headers.get("cookie", "")))
        if not any(guard.knows(one) for one in given):
            return 401, (
                "a token is needed: send `Authorization: Bearer TOKEN`"
                if guard.is_api
                else "a token is needed: open the address that was printed at the start"
            )
        if scope["method"] not in READS:
            if guard.is_read_only:
                return 403, "read-only: nothing can be changed here"
            if origin is None and not guard.is_api:
                return 403, "a change must come from a page of this server"
        return None


def _name(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _welcome(scope: Scope, token: str) -> list[tuple[str, str]]:
    """Keep the token in a cookie and take it out of the address."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    query.pop("token")
    rest = urlencode(query, doseq=True)
    place = scope["path"] + (f"?{rest}" if rest else "")
    kept = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
    return [("location", place if not place.startswith("//") else "/"), ("set-cookie", kept)]


async def _answer(
    send: Send, status: int, words: str, more: list[tuple[str, str]] | None = None
) -> None:
    headers = [("content-type", "text/plain; charset=utf-8"), *HEADERS, *(more or [])]
    raw = [(k.encode(), v.encode("latin-1")) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": words.encode()})


def _dressed(send: Send) -> Send:
    """`send` with our headers on every answer."""

    async def dressed(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = [(k.encode(), v.encode()) for k, v in HEADERS]
            message["headers"] = [*message.get("headers", ()), *ours]
        await send(message)

    return dressed
