"""A leader arm on the twin, through LeRobot's own class: whose servos it may touch, and where it says that it is."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from twin_desk import SPEC, Desk, until

from vla_rl.hardware.lerobot_teleop import LeRobotTeleop
from vla_rl.hardware.twin.faults import Fault


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path, leader=tmp_path / "leader")
    (tmp_path / "hand.json").write_text(json.dumps(made.twin.calibration("leader")))
    yield made
    made.close()


@pytest.fixture
def lead(desk):
    """Connects the leader."""
    made = []

    def connected(spec=SPEC, **settings):
        own = {"port": str(desk.twin.leader_port), "id": "hand", "calibration_dir": str(desk.folder)}
        made.append(LeRobotTeleop(spec, "so101_leader", {**own, **settings}))
        return made[-1]

    yield connected
    for one in made:
        one.close()


def refused(lead, match, **how):
    with pytest.raises(ValueError, match=match) as error:
        lead(**how)
    assert str(error.value).startswith("teleoperator so101_leader")
    assert "\n" not in str(error.value)


def test_the_port_of_an_arm_that_is_driven_is_refused_and_the_arm_stays_up(desk, lead):
    arm = desk.arm()
    refused(lead, "another program has it", port=str(desk.twin.port))
    assert desk.torque() == [True] * 6
    arm.command(arm.sense().joints)
    assert not arm.fault


def test_the_port_of_an_arm_that_its_torque_holds_up_is_refused_and_nothing_is_written_to_it(desk, lead):
    desk.arm(at_exit="hold").close()
    writes = desk.twin.status()["follower"]["counts"]["writes"]
    refused(lead, "is another arm's: .*lerobot-calibrate --teleop.type=so101_leader", port=str(desk.twin.port))
    assert desk.torque() == [True] * 6
    assert desk.twin.status()["follower"]["counts"]["writes"] == writes


def test_a_port_that_cannot_be_used_is_named_with_what_to_do(desk, lead, monkeypatch):
    refused(lead, "port /dev/nowhere does not exist: .*serial port", port="/dev/nowhere")
    real, device = os.access, os.path.realpath(desk.twin.leader_port)
    monkeypatch.setattr(os, "access", lambda path, *a: os.path.realpath(path) != device and real(path, *a))
    refused(lead, "permission denied on port .*: it belongs to the group .*usermod -aG")


def test_without_a_port_it_says_which_there_are():
    with pytest.raises(ValueError, match=r"no port is given; .*serial port"):
        LeRobotTeleop(SPEC, "so101_leader", {"port": ""})


@pytest.mark.parametrize("content", ["{", '{"gripper": {"colour": 3}}'], ids=["no JSON", "other keys"])
def test_a_damaged_calibration_is_named(desk, lead, content):
    (desk.folder / "hand.json").write_text(content)
    refused(lead, "hand.json, damaged.*lerobot-calibrate")


def test_units_are_never_guessed(lead):
    refused(lead, "shoulder_pan is in -100..100 .*, the arm's file says degrees", use_degrees=False)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_leader_and_follower_in_one_pose_say_the_same_joints(desk, lead, shift):
    """Whatever the middle of a joint's range is, in the arm's file."""
    arm = tuple(replace(j, low=j.low + shift, high=j.high + shift) for j in SPEC.joints[:4])
    spec = replace(SPEC, joints=arm + SPEC.joints[4:])
    pose = np.array([0.3, -0.4, 0.5, -0.2, 0.6, 0.8])
    for name in ("follower", "leader"):
        desk.twin.carry(pose, arm=name, wait=True)
    leader, follower = lead(spec).read().joints, desk.arm(spec).sense().joints
    assert leader == pytest.approx(follower, abs=0.01)
    assert leader[:4] == pytest.approx(pose[:4] + shift, abs=0.01)
    desk.twin.carry(None)


def test_bytes_that_are_damaged_cost_a_reading_and_no_more(desk, lead):
    leader, missed, here = lead(), 0, desk.twin.joints("leader")
    desk.twin.faults([Fault("damage", rate=0.2)], arm="leader")  # more than asking again makes up for
    for _ in range(10):
        try:
            leader.read()
        except ConnectionError:
            missed += 1
    assert missed
    desk.twin.faults([], arm="leader")
    assert leader.read().joints == pytest.approx(here, abs=0.01)


def test_the_trigger_of_a_leader_need_not_open_as_wide_as_a_gripper(desk, lead):
    calibration = desk.twin.calibration("leader")
    with desk.twin.lock:
        servo = desk.twin._leader.servos[5]
        calibration["gripper"]["range_max"] -= 300
        servo.memory["Max_Position_Limit"] -= 300
    (desk.folder / "hand.json").write_text(json.dumps(calibration))
    assert lead().leads


def test_one_that_was_unplugged_is_named_and_can_be_let_go_of(desk, lead):
    leader = lead()
    desk.twin.faults([Fault("gone")], arm="leader")
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"teleoperator so101_leader: port .* is gone"):
            until(lambda: leader.read() is None)
    leader.close()
