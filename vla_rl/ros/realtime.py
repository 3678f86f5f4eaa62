"""Scheduling of a whole process, the middleware's threads included, where the system allows it: real time, or favour.

::

    50  control's loop
    49  robot's watchdog
    40  what feeds them: executors, and DDS's own threads, through which every message comes
    30  robot's loop, which draws pictures too
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

CONTROL, WATCHDOG, FEEDERS, ROBOT = 50, 49, 40, 30


def promote_process(priority: int = FEEDERS) -> bool:
    """Give every thread that this process has by now SCHED_FIFO; returns whether the system allowed it."""
    return _for_threads(lambda thread: os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority)))


def favour_process(nice: int) -> bool:
    """Give every thread that this process has by now a niceness, which later ones inherit; whether it was allowed."""
    return _for_threads(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, nice))


def _for_threads(change: Callable[[int], None]) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        change(0)  # the calling thread first: it shows whether this is allowed
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                change(int(task.name))
        return True
    return False
