"""Servos and cameras do not wait until a busy machine has time for them: the twin's threads go before others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ANSWER, DRAW = 20, 10  # who draws may hold a lock that who answers waits for


@contextmanager
def ahead() -> Iterator[None]:
    """This thread, and those that it starts meanwhile, go before others: SCHED_FIFO where the system allows it."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    answer_at_once()
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, *before)


def answer_at_once() -> None:
    """Give this thread SCHED_FIFO where the system allows it: for one that works little and must not wait."""
    _promote(ANSWER)


def draw_soon() -> None:
    """The same for one that works more: it goes before others, but not before those that answer at once."""
    _promote(DRAW)


def _promote(priority: int) -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
