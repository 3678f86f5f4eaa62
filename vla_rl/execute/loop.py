"""PeriodicLoop: an absolute schedule on the monotonic clock, with the lateness of its beginnings and ends counted."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator

import numpy as np

KEPT = 4096


def realtime_priority(priority: int = 50) -> bool:
    """Ask for SCHED_FIFO for the calling thread; returns whether the system allows it."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        return True
    return False


class PeriodicLoop:
    """Periods that begin at start + n period, however long each takes; a period missed altogether is skipped.

    Args:
        period_s: between two beginnings [s].

    Attributes:
        periods: how many have begun.
        overruns: how many were skipped because the one before took too long.
    """

    def __init__(self, period_s: float) -> None:
        self._period_ns = round(period_s * 1e9)
        self._late: deque[float] = deque(maxlen=KEPT)
        self._done: deque[float] = deque(maxlen=KEPT)
        self.periods = self.overruns = 0

    def ticks(self) -> Iterator[int]:
        """The monotonic time [ns] at the beginning of each period, for ever."""
        due = time.monotonic_ns()
        while True:
            time.sleep(max(due - time.monotonic_ns(), 0) * 1e-9)
            now = time.monotonic_ns()
            self.note(now - due)
            yield now
            self._done.append((time.monotonic_ns() - due) * 1e-6)
            due += self._period_ns
            missed = max((time.monotonic_ns() - due) // self._period_ns, 0)
            self.overruns += missed
            due += missed * self._period_ns

    def note(self, late_ns: int) -> None:
        """Count a period that began this late."""
        self.periods += 1
        self._late.append(late_ns * 1e-6)

    def late_ms(self, percentile: float) -> float:
        """A percentile of the lateness of recent periods [ms]; 0 before the first."""
        return float(np.percentile(self._late, percentile)) if self._late else 0.0

    def done_ms(self, percentile: float) -> float:
        """A percentile of when the work of recent periods was done, after they were due [ms]; 0 before the first."""
        return float(np.percentile(self._done, percentile)) if self._done else 0.0
