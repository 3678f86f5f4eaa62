"""LeRobotArm on the twin, through LeRobot's own driver: what it tells, what it sends, and what it refuses."""

import itertools
import os
import stat
import time
from dataclasses import replace

import numpy as np
import pytest
from twin_desk import SPEC, until

from vla_rl.hardware.lerobot_arm import LeRobotArm
from vla_rl.hardware.twin.faults import Fault as TwinFault
from vla_rl.robot import Fault, Physical

TICK = 2 * np.pi / 4096


def drive(arm, targets, joint_step=0.05):
    """Commands towards targets, a step a period, until the last one."""
    here = arm.sense().joints
    for share in np.linspace(0, 1, max(2, int(np.abs(targets - here).max() / joint_step)))[1:]:
        arm.command(here + (targets - here) * share)
        time.sleep(0.01)


def test_it_tells_the_joints_as_they_are_and_moves_them_where_it_is_told(desk):
    arm = desk.arm()
    assert isinstance(arm, Physical)
    target = np.array([0.3, -0.2, 0.25, -0.3, 0.4, 0.9])
    drive(arm, target)
    until(lambda: np.abs(arm.sense().joints - target).max() < 0.02, "the arm is there")
    until(lambda: np.allclose(arm.sense().joints, desk.twin.joints(), atol=2 * TICK, rtol=0), "it came to rest")
    assert (np.diff([arm.sense().stamp_ns for _ in range(5)]) > 0).all()


def test_what_a_command_returns_is_what_the_servos_got(desk):
    arm = desk.arm()
    sent = arm.command(arm.sense().joints + 0.01)
    raw = [desk.calibration[j.name] for j in SPEC.joints]
    middles = np.array([(c["range_min"] + c["range_max"]) / 2 for c in raw])
    until(lambda: np.allclose((np.array(desk.goals()) - middles)[:5] * TICK, sent[:5], atol=1.1 * TICK, rtol=0))


@pytest.mark.parametrize("wrong", [np.zeros(5), np.full(6, np.nan), np.full(6, np.inf)], ids=["size", "nan", "inf"])
def test_a_command_that_is_none_is_refused_and_nothing_is_sent(desk, wrong):
    arm, before = desk.arm(), desk.goals()
    with pytest.raises(ValueError, match="6 finite joint targets"):
        arm.command(wrong)
    assert desk.goals() == before


def test_targets_outside_the_limits_never_reach_a_servo(desk):
    arm = desk.arm()
    for far in (10.0, -10.0):
        assert (np.abs(arm.command(np.full(6, far))) <= np.maximum(np.abs(arm.spec.low), arm.spec.high) + TICK).all()
    assert desk.twin.status()["follower"]["counts"]["goals_outside"] == 0


def test_connecting_moves_nothing_and_leaves_a_torque_that_is_on_as_it_is(desk):
    first = desk.arm()
    drive(first, first.sense().joints + 0.3)
    until(lambda: np.abs(first.sense().velocities).max() < 1e-3)
    first.close()
    assert desk.torque() == [True] * 6
    edges, place = len(desk.twin.events("torque")), desk.twin.joints()
    desk.arm()
    assert len(desk.twin.events("torque")) == edges
    assert desk.twin.joints() == pytest.approx(place, abs=2 * TICK)
    assert "was found holding" in desk.said[-1]


# -- exits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "on"), [("hold", True), ("release", False), ("lower", False)])
def test_the_torque_at_the_end_is_as_configured_and_announced_twice(desk, how, on):
    arm = desk.arm(at_exit=how)
    found = desk.twin.joints()
    drive(arm, arm.sense().joints + np.array([0.2, 0.2, 0.1, 0.1, 0.0, 0.0]))
    before = len(desk.twin.events("torque"))
    arm.close()
    assert desk.torque() == [on] * 6
    assert sum(how_text in line for line in desk.said for how_text in [_TEXT[how]]) == 2
    if how == "lower":
        assert desk.twin.joints() == pytest.approx(found, abs=0.03)
    if how == "hold":
        assert len(desk.twin.events("torque")) == before


@pytest.mark.parametrize(("how", "on"), [("release", False), ("lower", False)])
def test_a_command_that_does_not_get_through_is_said_again_at_the_exit(desk, how, on):
    arm = desk.arm(at_exit=how)
    write, tries = arm._write, itertools.count()

    def busy(targets):
        if next(tries) % 2 == 0:
            raise Fault("the line is busy")
        return write(targets)

    arm._write = busy
    arm.close()
    assert next(tries) > 1
    assert desk.torque() == [on] * 6
    assert not any("left as it is" in line for line in desk.said)


def test_an_arm_to_which_nothing_gets_through_is_left_as_it_is(desk):
    arm = desk.arm(at_exit="lower")

    def busy(targets):
        raise Fault("the line is busy")

    arm._write = busy
    arm.close()
    assert desk.torque() == [True] * 6
    assert "the line is busy: its torque is left as it is" in desk.said[-1]


def test_a_gripper_that_squeezes_is_let_go_like_the_rest_and_nobody_says_otherwise(desk):
    arm = desk.arm(at_exit="release")
    desk.fault("overloaded", servo=6)  # it obeys, and answers with its fault
    arm.close()
    assert desk.torque() == [False] * 6
    assert not any("left as it is" in line or "still holds" in line for line in desk.said)


def test_a_servo_that_was_not_heard_to_let_go_is_named_at_the_exit(desk):
    arm = desk.arm(at_exit="release")
    leave = arm._driver.release  # between the last goal and the cut the servo falls silent
    arm._driver.release = lambda: (desk.fault("silent", servo=3), leave())
    arm.close()
    assert desk.torque() == [False, False, True, False, False, False]
    assert "servo 3 (elbow_flex) does not say whether it still holds; every other torque is cut" in desk.said[-1]


_TEXT = {"hold": "goes on holding", "release": "cut where it is", "lower": "slowly to its resting pose"}


def test_an_arm_that_was_found_holding_is_not_lowered_to_nobody_knows_where(desk):
    desk.arm().close()
    desk.arm(at_exit="lower").close()
    assert desk.torque() == [True] * 6
    assert any("nobody knows where it rests" in line for line in desk.said)


@pytest.mark.parametrize("recovered", [False, True], ids=["found", "recovered"])
def test_what_an_arm_grips_when_it_is_rejoined_stays_gripped(desk, recovered):
    stopped = TwinFault("stuck", servo=6)  # something is between the jaws
    desk.twin.faults([stopped])
    first, opened = desk.arm(), desk.goals()[5]
    first.command(first.sense().joints - np.array([0, 0, 0, 0, 0, 0.2]))
    until(lambda: desk.goals()[5] < opened - 50)
    first.close()
    grip, second = desk.goals()[5], desk.arm()
    if recovered:
        desk.twin.faults([stopped, TwinFault("overheated", servo=2)])
        until(lambda: second.fault, "the fault is named")
        desk.twin.faults([stopped])
        second.recover()
    assert second.told[5] < second.sense().joints[5] - 0.1
    second.close()
    assert desk.goals()[5] == pytest.approx(grip, abs=2)


def test_an_arm_that_nobody_closed_keeps_its_torque(desk):
    arm = desk.arm()
    arm._driver.robot.__del__()  # what the interpreter does to LeRobot's robot at its end
    assert desk.torque() == [True] * 6


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(desk, match, **how):
    edges = len(desk.twin.events("torque"))
    with pytest.raises(ValueError, match=match) as error:
        desk.arm(**how)
    assert "\n" not in str(error.value)
    assert len(desk.twin.events("torque")) == edges


def test_a_port_that_does_not_exist_is_no_arm(desk):
    refused(desk, "port /dev/nowhere does not exist", settings={"port": "/dev/nowhere"})
    refused(desk, "Missing required field.* `port`", settings={"port": ""})


def test_a_file_is_no_port(desk, tmp_path):
    (tmp_path / "file").write_text("")
    refused(desk, "is no serial port", settings={"port": str(tmp_path / "file")})


def test_a_port_without_permission_names_the_group(desk, monkeypatch):
    real = os.access
    device = os.path.realpath(desk.twin.port)
    monkeypatch.setattr(os, "access", lambda path, *a: os.path.realpath(path) != device and real(path, *a))
    assert stat.S_ISCHR(os.stat(device).st_mode)
    refused(desk, "permission denied on port .*: it belongs to the group .*usermod -aG")


def test_a_port_that_another_program_has_is_not_shared(desk):
    desk.arm()
    refused(desk, "another program has it")


def test_without_a_calibration_nothing_moves_and_the_line_says_how_to_make_one(desk):
    refused(
        desk, "no calibration for 'other' in .*lerobot-calibrate --robot.type=so101_follower", settings={"id": "other"}
    )


def test_the_calibration_of_another_arm_is_refused(desk):
    foreign = {name: dict(c) for name, c in desk.calibration.items()}
    foreign["elbow_flex"]["homing_offset"] += 40
    desk.write(foreign)
    refused(desk, "is another arm's: elbow_flex homing .* in the file, .* in the servo")


def test_a_range_that_is_not_the_models_is_refused_and_both_are_named(desk):
    short = {name: dict(c) for name, c in desk.calibration.items()}
    short["shoulder_lift"]["range_max"] -= round(np.radians(8) / TICK)
    desk.write(short)
    refused(desk, "shoulder_lift was swept by 192.1 deg where the model has 200.0")


def test_joints_in_another_order_in_the_file_are_refused(desk):
    swapped = {name: dict(c) for name, c in desk.calibration.items()}
    swapped["shoulder_pan"]["id"], swapped["shoulder_lift"]["id"] = 2, 1
    desk.write(swapped)
    refused(desk, "shoulder_pan has id 2 in the file, 1 on the bus")


@pytest.mark.parametrize("joint", ["elbow_flex", "gripper"])
def test_a_joint_with_stops_that_was_not_swept_is_refused(desk, joint):
    lazy = {name: dict(c) for name, c in desk.calibration.items()}
    lazy[joint] |= {"range_min": 0, "range_max": 4095}
    desk.write(lazy)
    refused(desk, f"{joint} was swept by 360.0 deg where the model has")


def test_a_camera_that_does_not_open_is_refused_before_the_arm_has_torque(desk):
    refused(desk, "camera front does not open", cameras={"front": {"type": "opencv", "index_or_path": 63, "fps": 30,
                                                                   "width": 64, "height": 48}})  # fmt: skip


def test_an_arm_that_cannot_be_read_once_it_holds_is_left_limp_as_it_was_found(desk, monkeypatch):
    monkeypatch.setattr(LeRobotArm, "_find", lambda arm: arm._radians({}))
    with pytest.raises(ValueError, match=r"does not say where it is: an answer without shoulder_pan\.pos"):
        desk.arm()
    assert desk.torque() == [False] * 6


def test_limits_that_exclude_the_pose_are_refused_with_how_far(desk):
    desk.twin.carry([0, 0, 0, 0, 2.7, 0.5], wait=True)
    roll = replace(SPEC.joints[4], low=-2.7, high=2.55)
    spec = replace(SPEC, joints=(*SPEC.joints[:4], roll, SPEC.joints[5]))
    refused(desk, r"exclude where the arm is: wrist_roll is 0.1\d+ rad \([789].\d degrees\) above its limit", spec=spec)


def test_an_arm_of_other_joints_is_refused_by_name(desk):
    joints = tuple(replace(j, lerobot_name=j.lerobot_name.replace("gripper", "claw")) for j in SPEC.joints)
    refused(desk, "is not the arm 'so101': .*claw.pos", spec=replace(SPEC, joints=joints))


def test_units_are_never_guessed(desk):
    refused(desk, "is in -100..100 .*, the arm's file says degrees", settings={"use_degrees": False})


def test_a_robot_that_lerobot_does_not_have_is_refused_with_those_that_it_has(desk):
    refused(desk, "LeRobot has no robot 'so102'; there are: .*so101_follower", driver="so102")
    refused(desk, "it takes: .*port", settings={"speed": 3})


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"kind": "silent", "servo": 3}, r"no answer from servo 3 \(elbow_flex\)"),
        ({"kind": "silent"}, "no servo answers on .*: is the arm's power on"),
        (
            {"kind": "duplicate_id", "servo": 5, "value": 4},
            r"several servos on .* have the id 4|no answer from servo 5",
        ),
        ({"kind": "overloaded", "servo": 2}, r"servo 2 \(shoulder_lift\) is overloaded"),
    ],
    ids=["missing", "off", "duplicate", "overloaded"],
)
def test_servos_that_are_not_all_there_and_well_are_named(desk, fault, match):
    desk.fault(**fault)
    refused(desk, match)


def test_a_fault_latches_until_somebody_recovers_the_arm(desk):
    arm = desk.arm()
    desk.fault("overheated", servo=2)
    until(lambda: arm.fault, "the fault is named")
    assert "servo 2 (shoulder_lift) is overheated" in arm.fault
    goals = desk.goals()
    with pytest.raises(Fault, match="is held"):
        arm.command(arm.sense().joints)
    with pytest.raises(Fault, match="still held"):
        arm.recover()
    desk.mend()
    with pytest.raises(Fault):  # that it is well again moves nothing by itself
        arm.command(arm.sense().joints)
    assert desk.goals() == goals
    arm.recover()
    arm.command(arm.sense().joints)
    assert not arm.fault


def test_an_arm_that_sagged_is_recovered_where_it_lies_and_jumps_nowhere(desk):
    arm = desk.arm()
    desk.fault("power")
    until(lambda: arm.fault, "the fault is named")
    lies = np.array([0.3, -0.8, 0.5, 0.2, 0.0, 0.4])
    desk.twin.carry(lies, wait=True)
    desk.twin.carry(None)
    desk.mend()
    arm.recover()
    assert arm.hold() == pytest.approx(lies, abs=0.02)
    assert desk.twin.joints() == pytest.approx(lies, abs=0.02)


def test_a_servo_that_falls_silent_is_named_and_the_arm_is_held(desk):
    arm = desk.arm(silence_s=0.5)
    desk.fault("silent", servo=4)
    until(lambda: arm.fault, "the fault is named")
    assert "servo 4 (wrist_flex): There is no status packet" in arm.fault


def test_a_port_that_is_pulled_is_named_and_opened_again_by_recover(desk):
    arm = desk.arm()
    desk.fault("gone")
    until(lambda: arm.fault, "the fault is named")
    assert "is gone" in arm.fault
    desk.mend()
    until(desk.twin.port.exists)
    arm.recover()
    arm.command(arm.sense().joints)


def test_torque_that_a_servo_lost_by_itself_is_named(desk):
    arm = desk.arm()
    desk.fault("power", servo=5)
    until(lambda: arm.fault, "the fault is named")
    assert "wrist_roll" in arm.fault


def test_only_the_servo_that_lost_its_torque_gets_it_back_and_the_others_hold_all_along(desk):
    arm = desk.arm()
    desk.fault("power", servo=6)
    until(lambda: arm.fault, "the fault is named")
    desk.mend()
    edges = len(desk.twin.events("torque"))
    place = desk.twin.joints()
    arm.recover()
    assert [(event.servo, event.value) for event in desk.twin.events("torque")[edges:]] == [(6, 1)]
    assert desk.torque() == [True] * 6
    assert desk.twin.joints() == pytest.approx(place, abs=2 * TICK)


def test_a_gripper_that_squeezes_is_no_fault(desk):
    arm = desk.arm()
    desk.fault("overloaded", servo=6)
    until(lambda: arm.figures()["squeezes"] > 3)
    assert not arm.fault


def test_damaged_bytes_are_counted_and_no_command_is_lost_without_a_count(desk):
    arm = desk.arm()
    before = desk.twin.status()["follower"]["counts"]["goals"]
    desk.fault("damage", rate=0.005)
    sent = 0
    for _ in range(150):
        arm.sense()
        arm.command(arm.spec.low * 0 + 0.2 * np.sin(sent / 20))
        sent += 1
    desk.mend()
    figures, counts = arm.figures(), desk.twin.status()["follower"]["counts"]
    assert figures["errors"] > 0
    assert counts["wrong_id_writes"] == 0
    assert sent - (counts["goals"] - before) / 6 <= figures["lost"] + figures["unconfirmed"]
