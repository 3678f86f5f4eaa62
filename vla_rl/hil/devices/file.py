"""Reading a device's file without waiting; one that is unplugged may come back."""

from __future__ import annotations

import contextlib
import os

_LARGEST, _MOST = 4096, 256  # bytes of a report, reports of a read
_RETRY_NS = 1_000_000_000


class DeviceFile:
    """What a device's file says, as it comes.

    Args:
        path: /dev/hidraw3, /dev/tty, a named pipe.

    Raises:
        OSError: it can not be opened.

    Attributes:
        handle: of the open file, -1 while it is lost.
    """

    def __init__(self, path: str) -> None:
        self._path, self._tried_ns = path, 0
        self.handle = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def read(self, now_ns: int) -> list[bytes] | None:
        """What it said since the last read, as the kernel hands it out: a report of a HID device each.

        None where the device is gone; once a second it is looked for again.
        """
        if self.handle < 0 and now_ns - self._tried_ns > _RETRY_NS:
            self._tried_ns = now_ns
            with contextlib.suppress(OSError):
                self.handle = self._open()
        found: list[bytes] = []
        while self.handle >= 0 and len(found) < _MOST:
            try:
                said = os.read(self.handle, _LARGEST)
            except BlockingIOError:
                return found
            except OSError:
                said = b""
            found.append(said)
            if not said:
                self._tried_ns = now_ns
                self.close()
        return found if self.handle >= 0 else None

    def close(self) -> None:
        """Let go of it."""
        if self.handle >= 0:
            os.close(self.handle)
        self.handle = -1
