"""How the process of a node ends: at once, whenever it is asked to, and when its parent is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def leave(status: int) -> NoReturn:
    """End the process, now that its nodes are closed.

    Python would first take thousands of modules apart: seconds on a busy machine, and not safe beside an inference.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def abortable() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process within: loading takes many seconds and leaves nothing to tidy up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: leave(0)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(parent: int, number: signal.Signals) -> bool:
    """Have the kernel signal this process when its parent dies, however it dies (Linux).

    Returns:
        Whether `parent` is its parent; where not, it has died already, or something else stands between.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent
