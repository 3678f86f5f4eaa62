"""What may reach an arm while robot_node recovers it from a fault: nothing that was meant for where it was before."""

from types import SimpleNamespace

import numpy as np
import pytest

from vla_rl.robot import Sensed, arm_spec
from vla_rl.ros.guard import Guard
from vla_rl.ros.robot_node import RobotNode

SPEC = arm_spec("so101")
EPOCH, NOW = 1_700_000_000 * 10**9, 10**12
BEFORE = np.array([0.0, -0.6, 0.5, 1.2, 0.4, 0.45])


class Sagged:
    """An arm whose fault is gone the moment that `recover` ends; meanwhile somebody looks at the guard."""

    def __init__(self, look):
        self.recover = look


def test_neither_a_hold_nor_a_command_finds_the_place_before_the_fault():
    guard = Guard(SPEC, 2 / SPEC.rate)
    guard.sense(Sensed(BEFORE, np.zeros(6), NOW + EPOCH), NOW)
    guard.take(BEFORE, b"control", NOW + EPOCH, NOW)
    much_later = NOW + 10**13  # than any deadline, and than the time for which a reset guard is deaf
    looked = []

    def look():
        looked.append(guard.hold(much_later))
        with pytest.raises(ValueError, match="not been sensed yet"):
            guard.take(BEFORE, b"control", much_later + EPOCH, much_later)

    node = SimpleNamespace(_guard=guard, _robot=Sagged(look))
    assert "takes commands" in RobotNode._recover(node)
    assert looked == [None]
