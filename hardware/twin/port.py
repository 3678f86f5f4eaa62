"""A serial port that is none: a pseudo-terminal behind a link of a fixed name, which can go and come back."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import suppress
from pathlib import Path

SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}
CHUNK = 4096


class Port:
    """The servos' end of a serial line.

    Args:
        link: where a driver finds it; what is there must be a link, or nothing.

    Raises:
        FileExistsError: there is a file that is no link.
    """

    def __init__(self, link: Path) -> None:
        self.link = link
        self._master = self._slave = -1
        if link.exists() and not link.is_symlink():
            raise FileExistsError(f"{link} is a file; the twin's port must be a link, or a name that is free")
        link.parent.mkdir(parents=True, exist_ok=True)
        self.plug_in()

    @property
    def plugged_in(self) -> bool:
        """Whether the port is there."""
        return self._master >= 0

    def fileno(self) -> int:
        """For `select`."""
        return self._master

    @property
    def baud(self) -> int:
        """The speed that the driver has set [bit/s]: master and slave share their settings."""
        return SPEEDS.get(termios.tcgetattr(self._master)[4], 0)

    def plug_in(self) -> None:
        """A new device, and the link leads to it."""
        if self.plugged_in:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # the slave stays open: a driver that closes it is no hang-up
        os.set_blocking(self._master, False)
        fresh = self.link.with_name(f".{self.link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self.link)

    def pull(self) -> None:
        """The device is gone: whoever has it open gets errors, and the link with it."""
        if self.plugged_in:
            self.link.unlink(missing_ok=True)
            os.close(self._slave)
            os.close(self._master)
            self._master = self._slave = -1

    def read(self) -> bytes:
        """What has come, perhaps nothing."""
        with suppress(BlockingIOError):
            return os.read(self._master, CHUNK)
        return b""

    def write(self, data: bytes) -> int:
        """Send bytes; how many found room: a driver that never reads fills its buffer."""
        with suppress(BlockingIOError):
            return os.write(self._master, data)
        return 0
