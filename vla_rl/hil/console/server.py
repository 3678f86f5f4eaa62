"""Console: serves the page, its sockets and the episodes' thumbnails from a thread of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event, Thread

from aiohttp import web

from vla_rl.hil.console.access import HEADERS, Access, name_for_others
from vla_rl.hil.console.link import LAG_S, Link
from vla_rl.hil.desk import Desk
from vla_rl.hil.driving import Driving
from vla_rl.types import RobotSpec

PORT = 8080
_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Console:
    """The operator's page over a desk, until `close`.

    Args:
        desk: what it shows and asks.
        host: the address; this machine alone, unless told otherwise.
        port: 0 takes a free one.
        token: what a browser must bring; "" makes one where others than this machine reach the address.
        spec: the robot, so that keys drive as seen by its first camera.
        lag_s: a page that is further behind does not drive [s].

    Raises:
        ValueError: the address can not be served; one line.
    """

    def __init__(
        self,
        desk: Desk,
        host: str = "127.0.0.1",
        port: int = PORT,
        token: str = "",
        spec: RobotSpec | None = None,
        lag_s: float = LAG_S,
    ) -> None:
        self._desk, self._driving, self._access, self._lag_s = desk, Driving(spec), Access(host, token), lag_s
        self._address, self._links, self._numbers = (host, port), set[Link](), count(1)
        self._loop = asyncio.new_event_loop()
        self._ready, self._ending, self._failure = Event(), asyncio.Event(), ""
        self._thread = Thread(target=self._run, name="console", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure:
            self._thread.join()
            raise ValueError(self._failure)

    @property
    def url(self) -> str:
        """What to open in a browser, the token included."""
        host, port = name_for_others(self._address[0]), self._address[1]
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{port}/" + (f"?token={self._access.token}" if self._access.token else "")

    def close(self) -> None:
        """Tell every page goodbye, and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, *self._address)
            await site.start()
            self._address = (self._address[0], runner.addresses[0][1])
            self._ready.set()
            await self._ending.wait()
            for link in tuple(self._links):
                with suppress(ConnectionError):
                    await link.close()
        except OSError as error:
            host, port = self._address
            self._failure = f"the console can't be served at {host}:{port} ({error.strerror}): choose another port"
        finally:
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._access.middleware()], client_max_size=1024)
        app.add_routes(
            [
                web.get("/", self._file),
                web.get("/live", self._live),
                web.get("/thumbnails/{ordinal:[0-9]{1,9}}.jpg", self._thumbnail),
                web.get("/{name:[a-z]+[.](?:js|css|svg)}", self._file),
            ]
        )
        return app

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = _PAGE / request.match_info.get("name", "index.html")
        if not path.is_file():
            raise web.HTTPNotFound(headers=HEADERS)
        kind = _TYPES[path.suffix]
        return web.Response(text=path.read_text(), content_type=kind, charset="utf-8", headers=HEADERS)

    async def _thumbnail(self, request: web.Request) -> web.StreamResponse:
        jpeg = self._desk.thumbnails.get(int(request.match_info["ordinal"]))
        if jpeg is None:
            raise web.HTTPNotFound(headers=HEADERS)
        return web.Response(body=jpeg, content_type="image/jpeg", headers=HEADERS)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        link = Link(self._desk, f"console {next(self._numbers)}", self._driving, self._lag_s)
        self._links.add(link)
        try:
            return await link.run(request)
        finally:
            self._links.discard(link)


def serve(
    desk: Desk,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str = "",
    spec: RobotSpec | None = None,
    lag_s: float = LAG_S,
) -> Console:
    """A running console: see `Console`."""
    return Console(desk, host, port, token, spec, lag_s)
