"""An arm under ros2_control: what is sent, what is heard, and what is held when something is not as it should be."""

import time
from itertools import pairwise

import numpy as np
import pytest
from ros2_control_toy import Toy

from vla_rl.arm_file import ArmFileError
from vla_rl.hardware.ros2_control_arm import Ros2ControlArm
from vla_rl.hardware.ros2_control_config import MAX_REACH, Ros2ControlConfig
from vla_rl.robot import Fault, Physical, arm_section, arm_spec
from vla_rl.ros import messages

PATIENCE_S = 20.0
SPEC = arm_spec("so101")
ARM, GRIPPER = SPEC.names[:5], SPEC.names[5:]
REST = dict(zip(SPEC.names, (0.1, -0.2, 0.3, 0.4, -0.5, 0.6), strict=True))
PERIOD_S = 1 / SPEC.rate
TWO = [
    {"name": "/arm_controller", "kind": "trajectory", "joints": list(ARM)},
    {"name": "/gripper_controller", "kind": "forward", "joints": list(GRIPPER)},
]


def config(controllers=TWO, spec=SPEC, **section):
    cameras = {camera.name: f"/camera/{camera.name}/image_raw" for camera in spec.cameras}
    return Ros2ControlConfig.from_dict({"controllers": controllers, "cameras": cameras, **section}, spec, "test")


def arm_of(found, spec=SPEC):
    return Ros2ControlArm(spec, found, messages.image_of, messages.compressed_of)


@pytest.fixture
def toy():
    made = Toy(REST, {"arm_controller": ARM}, {"gripper_controller": GRIPPER})
    yield made
    made.close()


@pytest.fixture
def arm(toy):
    made = arm_of(config())
    yield made
    made.close()


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def drive(arm, to, seconds=0.5):
    """Commands at the arm's rate, in a straight line to a place."""
    start, steps = arm.sense().joints, round(seconds * SPEC.rate)
    for step in range(1, steps + 1):
        arm.command(start + (np.asarray(to) - start) * step / steps)
        time.sleep(PERIOD_S)


def goals(controller):
    return np.array([message.points[-1].positions for _, message in controller.heard])


def test_it_is_a_robot_with_faults_of_its_own(arm):
    assert isinstance(arm, Physical)
    assert arm.fault == ""


def test_joints_are_those_of_the_arm_whatever_the_order_of_the_message(arm):
    sensed = arm.sense()
    np.testing.assert_allclose(sensed.joints, list(REST.values()), atol=1e-6)
    assert abs(arm.now_ns() - sensed.stamp_ns) < PATIENCE_S * 1e9


def test_joints_may_come_from_several_broadcasters_without_velocities():
    toy = Toy(REST, {"arm_controller": ARM}, {"gripper_controller": GRIPPER}, [ARM[:2], [*ARM[2:], *GRIPPER]])
    toy.speeds = False
    arm = arm_of(config())
    try:
        drive(arm, np.array(list(REST.values())) + 0.2)
        until(lambda: np.abs(arm.sense().joints - toy.plant.position).max() < 1e-3)
    finally:
        arm.close()
        toy.close()


def test_every_controller_gets_its_joints_and_the_arm_goes_there(arm, toy):
    target = np.array(list(REST.values())) + 0.3
    drive(arm, target)
    until(lambda: np.abs(toy.plant.position - target).max() < 0.01)
    assert not any(controller.rejected for controller in toy.controllers.values())
    np.testing.assert_allclose(goals(toy.controllers["arm_controller"])[-1], target[:5], atol=1e-9)
    assert arm.fault == ""


@pytest.mark.parametrize("reach", [0.5, 1.0, MAX_REACH])
def test_no_trajectory_is_longer_than_two_periods_and_each_goes_on_where_the_one_before_is(toy, reach):
    arm = arm_of(config(reach_periods=reach))
    drive(arm, np.array(list(REST.values())) + 0.4)
    heard = toy.controllers["arm_controller"].heard
    arm.close()
    largest = 0.4 / (0.5 * SPEC.rate)
    for (_, before), (_, message) in pairwise(heard):
        *_, last = message.points
        assert last.time_from_start.sec == 0
        assert last.time_from_start.nanosec <= MAX_REACH * PERIOD_S * 1e9 + 1
        start, goal = (np.array(message.points[i].positions) for i in (0, -1))
        assert np.abs(goal - start).max() <= reach * 2.5 * largest
        assert np.abs(start - before.points[-1].positions).max() <= reach * 2.5 * largest


def test_when_commands_end_the_arm_travels_no_further_than_the_last_target(arm, toy):
    target = np.array(list(REST.values())) + 0.4
    drive(arm, target)
    last = goals(toy.controllers["arm_controller"])[-1]
    time.sleep(10 * PERIOD_S)
    assert (toy.plant.position[:5] <= last + 1e-6).all()


def test_what_is_out_of_limits_is_sent_within_them_and_what_is_no_number_not_at_all(arm, toy):
    beyond = np.full(6, 9.0)
    np.testing.assert_array_equal(arm.command(beyond), SPEC.high)
    count = len(toy.controllers["arm_controller"].heard)
    for wrong in (np.full(6, np.nan), np.zeros(5)):
        with pytest.raises(ValueError, match="6 finite joint targets"):
            arm.command(wrong)
    time.sleep(3 * PERIOD_S)
    assert len(toy.controllers["arm_controller"].heard) <= count + 1


def test_a_hold_is_one_place_and_the_gripper_keeps_its_last_command(arm, toy):
    target = np.array(list(REST.values())) + 0.4
    drive(arm, target)
    toy.plant.blocked[5] = True
    closed = target - np.array([0, 0, 0, 0, 0, 0.3])
    arm.command(closed)
    first = arm.hold()
    time.sleep(5 * PERIOD_S)
    np.testing.assert_array_equal(arm.hold(), first)
    assert first[5] == closed[5]
    assert np.abs(first - toy.plant.position)[:5].max() < 0.15


FAULTS = {
    "silent joint states": (
        lambda toy: setattr(toy, "talking", False),
        "joint_states has said nothing of shoulder_pan",
    ),
    "controller unloaded": (lambda toy: toy.controllers["arm_controller"].unload(), "'/arm_controller' loaded"),
    "controller inactive": (lambda toy: setattr(toy.controllers["arm_controller"], "active", False), "is inactive"),
    "gripper's controller gone": (lambda toy: toy.controllers["gripper_controller"].unload(), "'/gripper_controller'"),
    "something in the way": (lambda toy: toy.plant.blocked.fill(True), "something is in the way"),
    "a turn of wrap": (lambda toy: toy.offset.__setitem__(2, 2 * np.pi), "'elbow_flex' jumped by 6"),
    "clocks apart": (lambda toy: setattr(toy, "skew_s", 3.0), "synchronise the clocks"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_goes_wrong_is_named_the_arm_held_and_nothing_resumes_by_itself(arm, toy, what):
    happen, named = FAULTS[what]
    here = np.array(list(REST.values()))
    drive(arm, here + 0.1, 0.3)
    happen(toy)
    with pytest.raises(Fault, match=named):
        drive(arm, here + 0.8, 1.0)
    assert named.split("'")[0] in arm.fault
    time.sleep(0.3)
    held = toy.plant.position.copy()
    for _ in range(5):
        with pytest.raises(Fault):
            arm.command(here + 0.8)
        time.sleep(PERIOD_S)
    np.testing.assert_allclose(toy.plant.position, held, atol=0.02)


def test_a_person_may_let_it_go_on_once_all_is_well(arm, toy):
    here = np.array(list(REST.values()))
    drive(arm, here + 0.1, 0.3)
    toy.talking = False
    until(lambda: arm.fault)
    with pytest.raises(Fault, match="said nothing"):
        arm.recover()
    toy.talking = True
    time.sleep(0.1)
    assert "said nothing" in arm.fault
    arm.recover()
    assert arm.fault == ""
    drive(arm, here + 0.3, 0.3)
    until(lambda: np.abs(toy.plant.position - here - 0.3).max() < 0.01)


def test_a_refused_recover_does_not_forget_that_the_encoder_is_lost(arm, toy):
    drive(arm, np.array(list(REST.values())) + 0.1, 0.3)
    toy.offset[2] = 2 * np.pi
    until(lambda: arm.fault)
    with pytest.raises(Fault, match="exclude where the arm is: elbow_flex"):
        arm.recover()
    held = toy.plant.position.copy()
    for _ in range(10):  # nobody knows where the joint is: any place to hold it at may be far away
        arm.hold()
        time.sleep(PERIOD_S)
    np.testing.assert_allclose(toy.plant.position, held, atol=0.02)
    toy.offset[2] = 0.0
    time.sleep(0.1)
    arm.recover()
    arm.hold()
    assert arm.fault == ""


def test_a_gripper_that_closes_on_something_is_no_fault(arm, toy):
    toy.plant.blocked[5] = True
    drive(arm, np.array(list(REST.values())) + np.array([0, 0, 0, 0, 0, -0.6]), 0.6)
    time.sleep(0.3)
    assert arm.fault == ""


def test_a_state_that_falls_silent_is_a_controller_that_is_not_active(monkeypatch):
    """control_msgs is not on PyPI; only its topic's silence counts, so that any message can stand for its type."""
    from std_msgs.msg import Float64MultiArray

    monkeypatch.setattr("vla_rl.hardware.controllers.state_kind", lambda: Float64MultiArray)
    toy = Toy(REST, {"arm_controller": ARM}, {"gripper_controller": GRIPPER}, None, Float64MultiArray)
    arm = arm_of(config())
    try:
        until(lambda: arm._controllers._states)
        assert arm.fault == ""
        toy.controllers["arm_controller"].active = False
        until(lambda: arm.fault)
        assert "'/arm_controller' tells its state no more: it is not active" in arm.fault
    finally:
        arm.close()
        toy.close()


def test_without_an_arm_it_says_who_is_missing(toy):
    with pytest.raises(ValueError, match=r"nobody publishes /nowhere/joint_states.*list_controllers"):
        arm_of(config(joint_states="/nowhere/joint_states", found_s=0.3))
    other = [{**TWO[0], "name": "/other_controller"}, TWO[1]]
    with pytest.raises(ValueError, match=r"nobody subscribes /other_controller/joint_trajectory"):
        arm_of(config(other, found_s=5.0))


def test_a_joint_that_nobody_tells_is_named():
    toy = Toy(REST, {"arm_controller": ARM}, {"gripper_controller": GRIPPER}, [ARM])
    try:
        with pytest.raises(ValueError, match="says nothing of gripper"):
            arm_of(config(found_s=5.0))
    finally:
        toy.close()


def test_limits_that_exclude_where_the_arm_is_refuse_and_say_how_far():
    toy = Toy({**REST, "elbow_flex": 2.0}, {"arm_controller": ARM}, {"gripper_controller": GRIPPER})
    try:
        with pytest.raises(ValueError, match=r"elbow_flex is 0.310 rad \(17.8 degrees\) above its limit"):
            arm_of(config())
    finally:
        toy.close()


def test_it_refuses_to_hear_itself(toy):
    from rclpy.node import Node

    node = Node("robot", context=toy.context)
    with pytest.raises(ValueError, match="a namespace of its own"):
        Ros2ControlArm(SPEC, config(), messages.image_of, messages.compressed_of, node)
    node.destroy_node()


def test_pictures_have_the_stamp_of_their_capture_and_a_camera_that_stops_is_missing(arm, toy):
    publishers = {name: toy.camera(f"/camera/{name}/image_raw") for name in ("front", "wrist")}
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    stamp = time.time_ns()

    def publish(*names):
        for name in names:
            publishers[name].publish(messages.image(picture, stamp, ""))
        time.sleep(0.02)
        return set(arm.frames())

    until(lambda: publish("front", "wrist") == {"front", "wrist"})
    frame = arm.frames()["front"]
    np.testing.assert_array_equal(frame.image, picture)
    assert frame.stamp_ns == stamp
    assert arm.observe() is not None
    until(lambda: publish("front") == {"front"})
    assert arm.observe() is None


def test_a_section_tells_all_that_is_wrong_with_it():
    wrong = {
        "controllers": [
            {"name": "/a", "kind": "trajektory", "joints": ["shoulder_pan", "shoulder_pan", "elbow"]},
            {"name": "/a", "kind": "forward"},
        ],
        "reach_periods": 3.0,
        "cameras": {"front": "/f"},
        "silence": 1,
    }
    with pytest.raises(ArmFileError) as caught:
        Ros2ControlConfig.from_dict(wrong, SPEC, "my.yaml")
    for part in (
        "my.yaml", "controllers[0].kind must be one of trajectory, forward", "controllers[1].joints is missing",
        "'/a' is there 2 times", "'shoulder_pan' is there 2 times", "have a joint 'elbow'", "leave out joint 'gripper'",
        "cameras.wrist is missing", "reach_periods must be a finite number above 0 up to 2",
        "ros2_control.silence is unknown",
    ):  # fmt: skip
        assert part in str(caught.value), part


def test_the_fr3s_section_drives_an_fr3():
    spec = arm_spec("fr3")
    found = Ros2ControlConfig.from_dict(arm_section("fr3", "ros2_control"), spec, "fr3.yaml")
    assert found.controllers[0].joints == spec.names
    assert found.controllers[0].topic == "/fr3_arm_controller/joint_trajectory"
