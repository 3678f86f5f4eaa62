"""Headless rendering, whichever test imports the engine first; one priority; and what lives in real time runs alone."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
HERE = Path(__file__).parent
REAL_TIME = (HERE / "ros", HERE / "hardware", HERE / "hil" / "test_console_page.py")


def pytest_collection_modifyitems(items):
    """Graphs of nodes, drivers and browsers have clocks of their own: two at a time on two cores miss them."""
    for item in items:
        if any(item.path.is_relative_to(place) for place in REAL_TIME):
            item.add_marker("alone")


@pytest.fixture(autouse=True)
def leave_the_priority_as_it_was():
    """SVT-AV1, with which LeRobot writes videos, gives root's calling thread SCHED_FIFO at 99, and never takes it back.

    All threads and nodes that later tests start would go before everything else on the machine.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    os.sched_setscheduler(0, *before)
