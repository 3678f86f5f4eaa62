"""robot_node over real DDS: what it tells, what it obeys, and what it does when nobody commands."""

import time
from xml.etree import ElementTree

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String

from vla_rl.kinematics import Kinematics
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos
from vla_rl.sim.arm import arm_model
from vla_rl.sim.env import TabletopEnv
from vla_rl.sim.mujoco_robot import MujocoRobot

SPEC = arm_spec("so101")
PERIOD = 1 / SPEC.rate


def stamps(heard):
    return [messages.stamp_ns(m.header.stamp) for m in heard]


def joints(message):
    return messages.joints_of(message, SPEC.names)


@pytest.fixture(scope="module")
def robot(start, peer):
    process = start("robot_node", task="lift", seed=3, image_width=64, image_height=48)
    heard = peer.hear(JointState, "joint_states")
    peer.until(lambda: heard)
    return process


@pytest.fixture
def arm(peer, robot):
    """Commands towards where the arm is not, one a period; each test starts with a new scene and a silent arm."""
    peer.trigger("sim/reset")
    states, status = peer.hear(JointState, "joint_states"), peer.hear(JointState, "sim/status")
    peer.until(lambda: len(states) > 3)
    publisher = peer.publisher(JointState, "joint_commands", qos.OFFER)
    yield Arm(peer, publisher, states, status)
    peer.destroy(publisher)


class Arm:
    def __init__(self, peer, publisher, states, status):
        self.peer, self.publisher, self.states, self.status = peer, publisher, states, status

    def move(self, joint, by, until):
        """Command a joint away from where it is, until a condition holds."""
        start, targets = joints(self.states[-1]), joints(self.states[-1])

        def act():
            targets[joint] += np.sign(by) * min(0.02, abs(start[joint] + by - targets[joint]))
            self.publisher.publish(messages.joint_state(SPEC.names, targets, time.time_ns()))

        self.peer.every(PERIOD, act, until)
        return start

    def says(self, key):
        return messages.vector_of(self.status[-1])[key]


def test_joints_pictures_and_status_of_a_period_carry_one_stamp_that_never_goes_back(robot, peer):
    states, status = peer.hear(JointState, "joint_states"), peer.hear(JointState, "sim/status")
    pictures, infos = peer.hear(Image, "camera/front/image_raw"), peer.hear(CameraInfo, "camera/wrist/camera_info")
    clock = peer.hear(Clock, "clock")
    peer.until(lambda: min(map(len, (states, status, pictures, infos, clock))) > 20)
    peer.trigger("sim/reset")
    peer.until(lambda: messages.vector_of(status[-1])["steps"] < 3)
    told = stamps(states)
    assert (np.diff(told) > 0).all()
    assert len(set(stamps(pictures)) & set(told)) > 10
    assert set(stamps(status)) & set(stamps(infos)) & set(told)
    assert (np.diff([messages.stamp_ns(m.clock) for m in clock]) > 0).all()
    assert messages.image_of(pictures[-1]).shape == (48, 64, 3)
    assert np.ptp(messages.image_of(pictures[-1])) > 100


def test_the_description_has_the_arms_kinematics(robot, peer):
    described = peer.hear(String, "robot_description", qos.LATCHED)
    peer.until(lambda: described)
    tree = ElementTree.fromstring(described[0].data)
    links = {link.get("name") for link in tree.findall("link")}
    found = {joint.get("name"): joint for joint in tree.findall("joint")}
    assert set(SPEC.names) < set(found)
    assert all({j.find("parent").get("link"), j.find("child").get("link")} <= links for j in found.values())
    values = dict(zip(SPEC.names, [0.3, -0.5, 0.4, 0.9, 1.2, 0.2], strict=True))
    expected = Kinematics(SPEC, arm_model()).forward(np.array(list(values.values())))
    assert tip(found, values) == pytest.approx(np.vstack([expected.position, expected.rotation]), abs=1e-4)


def tip(found, values):
    """Position and rotation of the fixed tip by the URDF's own rules, (4, 3)."""
    position, turn = np.zeros(3), np.eye(3)
    by_child = {joint.find("child").get("link"): joint for joint in found.values()}
    link, chain = "so101_tip", []
    while link in by_child:
        chain.append(by_child[link])
        link = by_child[link].find("parent").get("link")
    for joint in reversed(chain):
        xyz, (roll, pitch, yaw) = ([float(v) for v in joint.find("origin").get(k).split()] for k in ("xyz", "rpy"))
        position = position + turn @ xyz
        turn = turn @ about("z", yaw) @ about("y", pitch) @ about("x", roll)
        if joint.get("type") == "revolute":
            assert joint.find("axis").get("xyz") == "0 0 1"
            turn = turn @ about("z", values[joint.get("name")])
    return np.vstack([position, turn])


def about(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(axis, [[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def test_it_moves_as_commanded_and_holds_by_itself_once_commands_fall_silent(arm, peer):
    assert not arm.says("holding")
    start = arm.move(4, -0.4, lambda: joints(arm.states[-1])[4] < start_of(arm) - 0.2)
    assert not arm.says("holding")
    peer.until(lambda: arm.says("holding"), "the arm is held")
    assert arm.says("hold_sec") > 0
    since = len(arm.states)
    peer.until(lambda: len(arm.states) > since + 25)
    rest = np.array([joints(m) for m in arm.states[-10:]])
    assert np.ptp(rest, axis=0).max() < 0.01
    assert rest[-1, 4] < start[4] - 0.15
    arm.move(4, 0.3, lambda: not arm.says("holding"))


def start_of(arm):
    return joints(arm.states[0])[4]


def test_it_tells_everything_that_reached_the_arm_and_which_of_it_is_its_own_hold(arm, peer):
    told = peer.hear(JointState, "joint_targets")
    start = arm.move(4, -0.2, lambda: len(told) > 8)
    peer.until(lambda: all(m.header.frame_id == "hold" for m in told[-20:]))
    commanded, rest = [m for m in told if m.header.frame_id != "hold"], told[-20:]
    assert commanded
    assert max(joints(m)[4] for m in told) <= start[4] + 0.01
    assert joints(commanded[-1])[4] < start[4]
    assert (np.diff(stamps([commanded[-1], *rest])) > 0).all()
    assert {joints(m)[5] for m in rest} == {joints(commanded[-1])[5]}


def test_commands_of_a_second_publisher_are_not_mixed_in_and_it_is_named(arm, peer, robot):
    told = peer.hear(DiagnosticArray, "/diagnostics", qos.EVERY)
    second = peer.publisher(JointState, "joint_commands", qos.OFFER)
    home = joints(arm.states[-1])

    def both():
        arm.publisher.publish(messages.joint_state(SPEC.names, home, time.time_ns()))
        second.publish(messages.joint_state(SPEC.names, home + 0.5, time.time_ns()))

    def named():
        return any("more than one publisher" in s.message for m in told for s in m.status if s.name == "/robot")

    peer.every(PERIOD, both, lambda: named() and len(arm.states) > 40)
    assert np.abs(joints(arm.states[-1]) - home).max() < 0.1
    assert "2 publishers" in robot.log
    assert "not mixed in" in robot.log
    peer.destroy(arm.publisher)
    arm.publisher = second  # the first is gone: the second is followed
    arm.move(0, 0.3, lambda: joints(arm.states[-1])[0] > home[0] + 0.1)


def test_a_reset_applies_the_parameters_and_says_what_to_do_before_the_new_scene_is_seen(arm, peer):
    order = []
    peer.listen(String, "instruction", lambda m, *_: order.append(m.data), qos.LATCHED)
    peer.until(lambda: order)
    del order[:]
    peer.listen(JointState, "sim/status", lambda m, *_: order.append(m), qos.EVERY)
    peer.set_parameters("robot", {"task": "push", "seed": 11, "variant": 1, "randomisation": "positions"})
    peer.trigger("sim/reset")
    env = TabletopEnv("push", "positions", cameras=())
    env.reset(seed=11, options={"variant": 1})
    peer.until(lambda: not isinstance(order[-1], str) and order[-1].header.frame_id == env.task_description)
    new = [m for m in order if not isinstance(m, str)][-1]
    assert order.index(env.task_description) < order.index(new)
    assert messages.vector_of(new)["seed"] == 11
    peer.set_parameters("robot", {"task": "lift", "seed": 3, "variant": -1, "randomisation": "train"})


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"task": "juggle"}, "lift"), ({"randomisation": "wild"}, "train"), ({"seed": -1}, "seed"), ({"rate": 9}, "rate")],
)
def test_a_parameter_that_could_not_be_applied_is_refused_with_the_alternatives(robot, peer, values, reason):
    with pytest.raises(RuntimeError, match=reason):
        peer.set_parameters("robot", values)


def test_time_stands_still_in_a_pause_and_one_step_is_one_period(arm, peer):
    with pytest.raises(RuntimeError, match="sim/pause"):
        peer.trigger("sim/step")
    assert peer.trigger("sim/pause") == "paused"
    time.sleep(0.3)  # for what was told before the pause to arrive
    told, before = len(arm.status), arm.says("steps")
    peer.trigger("sim/step")
    peer.until(lambda: arm.says("steps") > before)
    assert arm.says("steps") == before + 1
    assert len(arm.status) == told + 1
    assert peer.trigger("sim/pause") == "running"
    peer.until(lambda: arm.says("steps") > before + 5)


def test_a_command_older_than_its_timeout_does_not_move_the_arm_and_is_counted(arm, peer):
    told = peer.hear(DiagnosticArray, "/diagnostics", qos.EVERY)
    home = joints(arm.states[-1])

    def late():
        arm.publisher.publish(messages.joint_state(SPEC.names, home + 0.3, time.time_ns() - 10**9))

    def counted():
        values = {v.key: v.value for m in told for s in m.status if s.name == "/robot" for v in s.values}
        return int(values.get("outdated", 0)) > 10

    peer.every(PERIOD, late, counted)
    assert np.abs(joints(arm.states[-1]) - home).max() < 0.05


def test_in_lockstep_the_world_waits_for_each_answer_and_is_the_world_in_process_bit_for_bit(start, peer):
    process = start("robot_node", seed=5, time="lockstep", cameras=["front"], compressed=True, __ns="/step")
    states = peer.hear(JointState, "/step/joint_states")
    pictures = peer.hear(CompressedImage, "/step/camera/front/compressed")
    peer.until(lambda: len(states) > 2)
    assert len(set(stamps(states))) == 1  # it asks again, and does not go on
    publisher = peer.publisher(JointState, "/step/joint_commands", qos.OFFER)
    alone = MujocoRobot(TabletopEnv("lift", cameras=()), seed=5)
    start_joints = alone.sense().joints
    assert np.array_equal(joints(states[-1]), start_joints)
    for i in range(20):
        targets = start_joints + 0.1 * (1 - np.cos(i / 10))
        asked = stamps(states)[-1]
        publisher.publish(messages.joint_state(SPEC.names, targets + 1, asked - 1))  # answers nothing: passed over
        publisher.publish(messages.joint_state(SPEC.names, targets, asked))
        alone.command(targets)
        peer.until(lambda asked=asked: stamps(states)[-1] > asked)
        assert np.array_equal(joints(states[-1]), alone.sense().joints)
    assert stamps(states)[-1] - stamps(states)[0] == pytest.approx(20e9 * PERIOD, abs=20)
    assert messages.compressed_of(pictures[-1], (96, 96)).shape == (96, 96, 3)
    process.stop()
