"""What robot_node makes of an arm's answers, by itself: what it passes on, what it tells, and what it starts from."""

import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from vla_rl.robot import Sensed, arm_spec
from vla_rl.ros.camera_topics import CameraTopics
from vla_rl.ros.guard import Guard
from vla_rl.ros.robot_node import RobotConfig, RobotNode

SPEC = arm_spec("so101")
EPOCH, NOW = 1_700_000_000 * 10**9, 10**12
BEFORE = np.array([0.0, -0.6, 0.5, 1.2, 0.4, 0.45])


class Told:
    """A publisher, and what it was given."""

    def __init__(self):
        self.heard = []

    def publish(self, message):
        self.heard.append((message.header.frame_id, list(message.position)))


class Clipping:
    """An arm that is given less than was asked for."""

    def command(self, targets):
        return targets / 2


def test_what_is_told_of_a_command_is_what_the_robot_says_it_has_sent():
    node = SimpleNamespace(spec=SPEC, _robot=Clipping(), _targets=Told())
    RobotNode._send(node, BEFORE, NOW, "hold")
    assert node._targets.heard == [("hold", (BEFORE / 2).tolist())]


class Gripping:
    """An arm found with its gripper told to close further than what it holds lets it."""

    told = BEFORE - np.array([0, 0, 0, 0, 0, 0.3])


def test_a_grip_that_was_found_is_told_until_somebody_is_followed_and_commands_go_on_from_it():
    guard, told = Guard(SPEC, 2 / SPEC.rate), Told()
    grippers = np.array([joint.gripper for joint in SPEC.joints])
    node = SimpleNamespace(spec=SPEC, _robot=Gripping(), _targets=told, _guard=guard, _grippers=grippers)
    guard.sense(RobotNode._with_grip(node, Sensed(BEFORE, np.zeros(6), NOW + EPOCH)), NOW)
    assert told.heard == [("kept", Gripping.told.tolist())]
    assert guard.take(Gripping.told, b"control", NOW + EPOCH, NOW)[5] == Gripping.told[5]
    RobotNode._with_grip(node, Sensed(BEFORE, np.zeros(6), NOW + EPOCH + 1))
    assert len(told.heard) == 1


@pytest.mark.parametrize(("there", "blind"), [({"slow", "fast"}, []), ({"fast"}, ["slow"])], ids=["late", "silent"])
def test_a_camera_is_silent_when_its_arm_says_so_however_slow_it_is(monkeypatch, there, blind):
    monkeypatch.setattr("vla_rl.ros.robot_node.Physical", object)
    now = time.monotonic()
    cameras = SimpleNamespace(_seen={"slow": now - 0.4, "fast": now})
    cameras.silent = partial(CameraTopics.silent, cameras)
    node = SimpleNamespace(_robot=None, _cameras=cameras, _there=there, _paused=False)
    assert RobotNode._blind(node) == blind


class Sagged:
    """An arm whose fault is gone the moment that `recover` ends; meanwhile somebody looks at the guard."""

    def __init__(self, look):
        self.recover = look


def test_neither_a_hold_nor_a_command_finds_the_place_before_the_fault():
    guard, now = Guard(SPEC, 2 / SPEC.rate), time.monotonic_ns()  # `recover` resets the guard by this clock
    guard.sense(Sensed(BEFORE, np.zeros(6), now + EPOCH), now)
    guard.take(BEFORE, b"control", now + EPOCH, now)
    much_later = now + 10**13  # than any deadline, and than the time for which a reset guard is deaf
    looked = []

    def look():
        looked.append(guard.hold(much_later))
        with pytest.raises(ValueError, match="not been sensed yet"):
            guard.take(BEFORE, b"control", much_later + EPOCH, much_later)

    node = SimpleNamespace(_guard=guard, _robot=Sagged(look))
    assert "takes commands" in RobotNode._recover(node)
    assert looked == [None]


def test_a_task_that_the_next_reset_could_not_set_up_is_refused_at_once():
    RobotNode.accept(None, RobotConfig(task="push"))
    for task in ("all", "lift,push", "juggle", ""):
        with pytest.raises(ValueError, match="lift, place, push"):
            RobotNode.accept(None, RobotConfig(task=task))
