"""Headless rendering, whichever test imports the engine first; and every test begins at the same priority."""

import os

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(autouse=True)
def leave_the_priority_as_it_was():
    """SVT-AV1, with which LeRobot writes videos, gives root's calling thread SCHED_FIFO at 99, and never takes it back.

    All threads and nodes that later tests start would go before everything else on the machine.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, *before)
