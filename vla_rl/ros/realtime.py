"""Real-time scheduling of a whole process, the middleware's threads included, where the system allows it.

::

    50  control's loop
    49  robot's watchdog
    40  what feeds them: executors, and DDS's own threads, through which every message comes
    30  robot's loop, which draws pictures too
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CONTROL, WATCHDOG, FEEDERS, ROBOT = 50, 49, 40, 30


def promote_process(priority: int = FEEDERS) -> bool:
    """Give every thread that this process has by now SCHED_FIFO; returns whether the system allowed it."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(priority))
        return True
    return False
