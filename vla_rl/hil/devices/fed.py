"""Fed: a device whose commands somebody else hears, from a topic or a page, and hands in."""

from __future__ import annotations

import threading
from dataclasses import replace

from vla_rl.hil.device import Command


class Fed:
    """Keeps the newest command, until it is too old to be meant; any thread may put, any may read.

    Args:
        name: of the device, for the operator.
        timeout_s: without a word for so long the device is lost [s].
        stay_s: a motion that is not said again for so long is over, though the device is there [s].
    """

    def __init__(self, name: str, timeout_s: float = 0.2, stay_s: float | None = None) -> None:
        self.name = name
        self._timeout_ns = round(timeout_s * 1e9)
        self._stay_ns = self._timeout_ns if stay_s is None else round(stay_s * 1e9)
        self._lock = threading.Lock()
        self._command, self._said_ns, self._heard_ns = Command(), 0, 0
        self._buttons: tuple[str, ...] = ()

    def put(self, command: Command, now_ns: int) -> None:
        """Take what it says at a monotonic time [ns]."""
        with self._lock:
            self._command, self._said_ns, self._heard_ns = command, now_ns, now_ns
            self._buttons += command.buttons

    def beat(self, now_ns: int) -> None:
        """It is there, and says nothing new."""
        with self._lock:
            self._heard_ns = now_ns

    def lose(self) -> None:
        """It is gone."""
        with self._lock:
            self._heard_ns, self._buttons = 0, ()

    def read(self, now_ns: int) -> Command | None:
        """The newest command with all buttons since the last read, None where it is lost, and those are void."""
        with self._lock:
            buttons, self._buttons = self._buttons, ()
            if not self._heard_ns or now_ns - self._heard_ns > self._timeout_ns:
                return None
            over = now_ns - self._said_ns > self._stay_ns
            return Command(buttons=buttons) if over else replace(self._command, buttons=buttons)

    def close(self) -> None:
        """Nothing to let go of."""
