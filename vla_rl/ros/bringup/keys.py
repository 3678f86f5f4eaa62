"""The keys of this terminal, for a node that has none: nodes run behind the supervisor, which alone owns it."""

from __future__ import annotations

import os
import select
import sys
import tempfile
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK_S = 0.1


@contextmanager
def relayed() -> Iterator[str]:
    """A named pipe that carries every key of this terminal as it is pressed; Ctrl-C stays the terminal's.

    Raises:
        ValueError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise ValueError("the keyboard needs a terminal; there are other devices, and the page's keys")
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    with tempfile.TemporaryDirectory(prefix="vla_rl_") as folder:
        path, over = str(Path(folder) / "keys"), threading.Event()
        os.mkfifo(path, 0o600)
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for both, so that it never ends before its reader
        relay = threading.Thread(target=_relay, args=(keys, pipe, over), name="keys")
        tty.setcbreak(keys)
        relay.start()
        try:
            yield path
        finally:
            over.set()
            relay.join()
            termios.tcsetattr(keys, termios.TCSANOW, before)
            os.close(pipe)


def _relay(keys: int, pipe: int, over: threading.Event) -> None:
    while not over.is_set():
        if select.select([keys], [], [], _TICK_S)[0]:
            said = os.read(keys, 4096)
            if not said:
                return
            try:
                os.write(pipe, said)
            except BlockingIOError:  # nobody reads: what was pressed long ago must not drive
                continue
