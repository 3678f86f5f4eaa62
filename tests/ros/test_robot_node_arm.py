"""robot_node with an arm on a servo bus: LeRobot's driver inside, the twin outside, real DDS between us and it."""

import json
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState

from vla_rl.build_arm import make_twin
from vla_rl.hardware.twin.faults import Fault
from vla_rl.hardware.twin.twin import TwinConfig
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos

SPEC = arm_spec("so101")
PERIOD = 1 / SPEC.rate


@pytest.fixture
def twin(tmp_path):
    with make_twin(TwinConfig(tmp_path / "follower")) as made:
        (tmp_path / "so101.json").write_text(json.dumps(made.calibration()))
        yield made


def parameters(twin, tmp_path, **further):
    return {
        "robot": "lerobot",
        "port": twin.port,
        "calibration": tmp_path,
        "cameras": [""],
        "silence_s": 2.0,
        **further,
    }


def torque(twin):
    return [servo["torque"] for servo in twin.status()["follower"]["servos"].values()]


@pytest.fixture
def robot(start, twin, tmp_path):
    return start("robot_node", **parameters(twin, tmp_path))


@pytest.fixture
def hand(peer):
    """Makes somebody who commands the arm; at the end nobody does."""
    made = []
    yield lambda: made.append(Hand(peer)) or made[-1]
    for one in made:
        peer.destroy(one.publisher)


class Hand:
    """Commands to the arm, a step a period."""

    def __init__(self, peer):
        self.peer, self.states = peer, peer.hear(JointState, "joint_states")
        peer.until(lambda: self.states)
        self.publisher = peer.publisher(JointState, "joint_commands", qos.OFFER)

    @property
    def joints(self):
        return messages.joints_of(self.states[-1], SPEC.names)

    def move(self, joint, step, until):
        targets = self.joints

        def act():
            targets[joint] += step
            self.publisher.publish(messages.joint_state(SPEC.names, targets, time.time_ns()))

        self.peer.every(PERIOD, act, until)


def test_it_drives_the_arm_and_holds_it_where_commands_fall_silent_and_when_it_ends(robot, twin, peer, hand):
    hand().move(0, 0.01, lambda: twin.joints()[0] > 0.2)
    places = []

    def rests():
        places.append(twin.joints()[0])
        return len(places) > 40 and max(places[-20:]) - min(places[-20:]) < 1e-3

    peer.every(0.02, lambda: None, rests)
    robot.stop()
    assert torque(twin) == [True] * 6
    assert "goes on holding" in robot.log


def test_a_fault_is_told_at_once_latches_and_is_recovered_by_a_call(robot, twin, peer, hand):
    hand = hand()
    said = peer.hear(DiagnosticArray, "/diagnostics")
    twin.faults([Fault("overheated", servo=3)])
    peer.until(lambda: any("servo 3 (elbow_flex) is overheated" in s.message for d in said for s in d.status))
    goals = [servo["goal"] for servo in twin.status()["follower"]["servos"].values()]
    count = len(said)
    hand.move(0, 0.01, lambda: len(said) > count + 2)
    assert goals == [servo["goal"] for servo in twin.status()["follower"]["servos"].values()]
    twin.faults([])
    peer.trigger("robot/recover")
    hand.move(0, 0.01, lambda: twin.joints()[0] > 0.1)
    robot.stop()


@pytest.mark.parametrize(("how", "on"), [("lower", False)])
def test_sigterm_leaves_the_torque_as_configured(start, twin, tmp_path, hand, how, on):
    process = start("robot_node", **parameters(twin, tmp_path, at_exit=how))
    hand().move(1, 0.01, lambda: twin.joints()[1] > 0.1)
    process.send(15)
    assert process.end() == 0
    assert torque(twin) == [on] * 6


def test_an_arm_that_cannot_be_used_ends_the_node_with_one_line(start, twin, tmp_path):
    process = start("robot_node", **parameters(twin, tmp_path, id="another"))
    assert process.end() == 1
    assert len(process.errors) == 1
    assert "no calibration for 'another'" in process.errors[0]
    assert torque(twin) == [False] * 6


def test_a_script_holds_no_leader_arm_of_a_real_arm(start, twin, tmp_path):
    robot = start("robot_node", **parameters(twin, tmp_path, leader="careful"))
    assert robot.end() == 1
    assert "leader 'careful': only a simulation has a script; a real arm has teleop_node" in robot.log
