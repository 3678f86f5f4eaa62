"""Who may open the console: its own page on this machine, or whoever has the token.

A browser lets any page that its user visits talk to a server on the user's own machine. So a request must name a host
that is ours (no page of another name that was pointed at this address), and a socket's page must be our own.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

COOKIE = "vla_rl_console"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NEEDED = "This console needs its token: open the whole address that hil_node printed (it ends in ?token=...).\n"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def name_for_others(host: str) -> str:
    """What to call a served address from elsewhere; one that stands for all of ours is none to open."""
    if host not in ("", "0.0.0.0", "::"):
        return host
    family, anywhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((anywhere, 9))  # sends nothing: picks the way out
        return str(probe.getsockname()[0])
    return socket.gethostname()


class Access:
    """Checks every request.

    Args:
        host: the address that is served.
        token: what a browser must bring; "" makes one where others than this machine reach the address.

    Attributes:
        token: what a browser must bring, "" where nothing.
    """

    def __init__(self, host: str, token: str = "") -> None:
        self._local = is_loopback(host)
        self.token = token or ("" if self._local else secrets.token_urlsafe(16))

    def middleware(self) -> Middleware:
        """The check, around every handler."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._check_host(request)
            if self.token and "token" in request.query:
                return self._welcome(request)
            if self.token and not self._known(request.cookies.get(_cookie(request), "")):
                raise web.HTTPUnauthorized(text=_NEEDED, headers=HEADERS)
            return await handler(request)

        return check

    def _check_host(self, request: web.Request) -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if self._local and not is_loopback(name):
            raise web.HTTPForbidden(text="this console is served to this machine only\n", headers=HEADERS)
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="another site's page may not use this console\n", headers=HEADERS)

    def _welcome(self, request: web.Request) -> web.StreamResponse:
        """The token moves from the address, which is shown and remembered, into a cookie."""
        if not self._known(request.query["token"]):
            raise web.HTTPUnauthorized(text=_NEEDED, headers=HEADERS)
        answer = web.HTTPSeeOther(request.path, headers=HEADERS)
        answer.set_cookie(_cookie(request), self.token, httponly=True, samesite="Strict")
        return answer

    def _known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())


def _cookie(request: web.Request) -> str:
    """A browser keeps one jar for all ports of a host: consoles beside each other need names of their own."""
    return f"{COOKIE}_{request.get_extra_info('sockname')[1]}"
