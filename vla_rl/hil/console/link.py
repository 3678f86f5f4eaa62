"""Link: one browser's page. Pictures and state go out no faster than the page takes them; wishes come in.

::

    page                                                          desk
      {"beat": 1, "at": 812.4} every 0.1 s --------------------->  heartbeat
      {"act": "take_over", "on": true, "id": 7} ---------------->  take_over      --> {"answer": 7, "ok", "text"}
      {"drive": {"keys": ["KeyW"], "axes": [...]}, "at": 812.4} ->  teleop
      {"seen": 0}         <--- a camera's number, then its JPEG    frame
      {"seen": "state"}   <--- {"at": 812.4, "state": {...}}       view
      closed --------------------------------------------------->  lost

`at` is the server's time of the newest state that the page has. A network that queues delivers beats evenly, and late:
those whose `at` is too old do not count, so that a key that was let go does not drive on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from vla_rl.hil.console.payload import encode, lists, urgent
from vla_rl.hil.desk import Desk
from vla_rl.hil.driving import Driving
from vla_rl.hil.operator import Answer

POLL_S, STATE_S = 1 / 60, 0.1  # how often the desk is looked at, how often an unchanged state is told again [s]
LAG_S = 0.5  # how old what a page has seen may be for it to drive [s]
AHEAD = 3  # pictures of one camera, or states, under way to the page at most: a slow network skips, it does not lag
MESSAGE_BYTES = 64 * 1024  # a page that sends more at once is cut off
_KEYS_AT_ONCE = 32

_MARKS = ("start", "success", "failure", "end", "discard", "rerecord")
_ACTS: dict[str, Callable[[Desk, str, dict[str, Any]], Answer]] = {
    "take_over": lambda desk, operator, wish: desk.take_over(wish.get("on") is not False, operator),
    "instruct": lambda desk, operator, wish: desk.instruct(_text(wish), operator),
    "note": lambda desk, operator, wish: desk.note(_text(wish), operator),
    **{
        name: lambda desk, operator, wish, name=name: getattr(desk, name)(operator)  # type: ignore[misc]
        for name in ("pause", "resume", "stop", "reset_stop", *_MARKS)
    },
}


class Link:
    """See the module.

    Args:
        desk: what the page shows and asks.
        operator: the page's name, as others are told who has the arm.
        driving: what its keys mean.
        lag_s: a page that has seen nothing newer than this does not drive [s].
    """

    def __init__(self, desk: Desk, operator: str, driving: Driving, lag_s: float = LAG_S) -> None:
        self._desk, self.operator, self._driving = desk, operator, driving
        self._lag_s, self._in_time = lag_s, False
        self._socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES, heartbeat=5.0, compress=False)
        self._ahead: Counter[str | int] = Counter()

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Serve the page until it is gone, however it goes."""
        await self._socket.prepare(request)
        showing = asyncio.create_task(self._show())
        try:
            await self._socket.send_str(json.dumps({"you": self.operator}))
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    break
                await self._hear(message.data)
        except ConnectionError:
            pass  # as good as closed
        finally:
            self._desk.lost(self.operator)
            showing.cancel()
        return self._socket

    async def close(self) -> None:
        """The console ends."""
        await self._socket.close()

    async def _hear(self, text: str) -> None:
        """One message of the page; what makes no sense is answered, never obeyed in part."""
        try:
            wish = json.loads(text)
        except (ValueError, RecursionError):
            wish = None
        if not isinstance(wish, dict):
            await self._answer(None, (False, "the page sent something that is not a JSON object"))
        elif "beat" in wish:
            if self._is_in_time(wish):
                self._desk.heartbeat(self.operator)
        elif "seen" in wish:
            self._seen(wish["seen"])
        elif "drive" in wish:
            if self._is_in_time(wish):
                self._drive(wish["drive"])
        else:
            await self._answer(wish.get("id"), self._act(wish))

    def _is_in_time(self, wish: dict[str, Any]) -> bool:
        """Whether the page has seen a state of a moment ago."""
        at, now = wish.get("at"), asyncio.get_running_loop().time()
        before, self._in_time = self._in_time, isinstance(at, (int, float)) and now - self._lag_s <= at <= now
        if before and not self._in_time:
            self._desk.say(f"{self.operator} is more than {self._lag_s:g} s behind: it does not drive", 1)
        return self._in_time

    def _seen(self, what: Any) -> None:
        if isinstance(what, (str, int)) and self._ahead[what] > 0:
            self._ahead[what] -= 1

    def _act(self, wish: dict[str, Any]) -> Answer:
        act = wish.get("act")
        if not isinstance(act, str) or act not in _ACTS:
            return False, f"unknown action; there are: {', '.join(_ACTS)}"
        try:
            return _ACTS[act](self._desk, self.operator, wish)
        except ValueError as error:
            return False, str(error)

    def _drive(self, wish: Any) -> None:
        """A refusal shows in the view; a page that sends nonsense drives nowhere."""
        keys, axes = (wish.get("keys", []), wish.get("axes", [])) if isinstance(wish, dict) else ([], [])
        if isinstance(keys, list) and isinstance(axes, list):
            codes = [key for key in keys[:_KEYS_AT_ONCE] if isinstance(key, str)]
            self._desk.teleop(self._driving(codes, [_share(axis) for axis in axes]), self.operator)

    async def _answer(self, number: Any, answer: Answer) -> None:
        number = number if isinstance(number, int) else None
        await self._socket.send_str(json.dumps({"answer": number, "ok": answer[0], "text": answer[1]}))

    async def _show(self) -> None:
        """Send what is new, as long as the page keeps up."""
        loop = asyncio.get_running_loop()
        shown: dict[str, int] = {}
        told: tuple[Any, ...] = ()
        record: tuple[Any, ...] = ()
        named: tuple[str, ...] = ()  # cameras that the page has been told of
        due = 0.0
        while True:
            view = self._desk.view()
            if self._ahead["state"] < AHEAD and (urgent(view) != told or loop.time() >= due):
                message = encode(view, loop.time(), record=lists(view) != record)
                told, record, named, due = urgent(view), lists(view), view.cameras, loop.time() + STATE_S
                self._ahead["state"] += 1
                await self._socket.send_str(message)
            for index, camera in enumerate(named):
                await self._show_frame(index, camera, shown)
            await asyncio.sleep(POLL_S)

    async def _show_frame(self, index: int, camera: str, shown: dict[str, int]) -> None:
        frame = self._desk.frame(camera)
        if frame is None or frame.number == shown.get(camera) or self._ahead[index] >= AHEAD or index > 255:
            return
        shown[camera] = frame.number
        self._ahead[index] += 1
        await self._socket.send_bytes(bytes([index]) + frame.jpeg)


def _share(axis: Any) -> float:
    """How far an axis is pushed; what is no share of anything is at rest (a JSON number may be beyond any float)."""
    return float(axis) if isinstance(axis, (int, float)) and abs(axis) < 2 else 0.0


def _text(wish: dict[str, Any]) -> str:
    text = wish.get("text")
    if not isinstance(text, str):
        raise ValueError("it needs a text")
    return text
