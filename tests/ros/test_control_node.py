"""control_node over real DDS, the test being its robot, its policy and its operator."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos
from vla_rl.types import ActionChunk, Source

SPEC = arm_spec("so101")
PERIOD = 1 / SPEC.rate
HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])


class World:
    """A robot that is where it was last commanded, told once a period."""

    def __init__(self, peer, space="", start=0):
        self.joints, self.stamp, self._peer, self._start = HOME.copy(), 0, peer, start or time.time_ns()
        self.states = peer.node.create_publisher(JointState, f"{space}joint_states", qos.OFFER)
        self.chunks = peer.node.create_publisher(JointTrajectory, f"{space}steering/chunk", qos.EVERY)
        self.commands, self.steps = [], []
        peer.listen(JointState, f"{space}joint_commands", self._obey, qos.EVERY)
        peer.listen(JointState, f"{space}control/step", lambda m, *_: self.steps.append(m), qos.EVERY)
        peer.until(lambda: self.states.get_subscription_count() and self.chunks.get_subscription_count())
        self._silent = threading.Event()
        self._thread = threading.Thread(target=self._be)

    def _obey(self, message, *_):
        self.commands.append(message)
        self.joints = messages.joints_of(message, SPEC.names)

    def _be(self):
        while not self._silent.wait(PERIOD):
            self.tell(time.time_ns())

    def begin(self):
        self._thread.start()

    def fall_silent(self):
        self._silent.set()
        self._thread.join()

    def tell(self, stamp):
        self.stamp = stamp
        self.states.publish(messages.joint_state(SPEC.names, self.joints, stamp))

    def chunk(self, length=16):
        """A chunk that answers the newest joints: the first joint goes on at half a radian a second, up to 1 rad."""
        stamp = self.stamp
        seconds = (stamp - self._start) * 1e-9 + np.arange(length) * PERIOD
        actions = HOME + np.minimum(0.5 * seconds, 1.0)[:, None] * (np.arange(6) == 0)
        self.chunks.publish(messages.chunk(ActionChunk(actions, SPEC.action_spec, PERIOD, stamp), "3"))

    def live(self, condition):
        """A chunk every fourth period until a condition holds."""
        self._peer.every(4 * PERIOD, self.chunk, condition)

    @property
    def last(self):
        return messages.vector_of(self.steps[-1])

    @property
    def why(self):
        return self.steps[-1].header.frame_id


@pytest.fixture(scope="module")
def control(start, peer):
    process = start("control_node")
    assert peer.change("control", "configure")
    return process


@pytest.fixture
def world(control, peer):
    assert peer.change("control", "activate"), control.log
    found = World(peer)
    found.begin()
    yield found
    found.fall_silent()
    assert peer.change("control", "deactivate")
    peer.destroy(found.states)
    peer.destroy(found.chunks)


def acting(world, source):
    return lambda: world.steps and world.last["source"] == source


def later(heard):
    """Whether a few more have been heard since now."""
    since = len(heard)
    return lambda: len(heard) > since + 3


def test_its_process_has_no_torch_and_no_simulation():
    code = (
        "import sys, vla_rl.ros.control_node; sys.exit(bool({'torch', 'mujoco', 'cv2', 'lerobot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_commands_nothing_before_it_is_active_and_nothing_after(world, peer, control):
    world.live(acting(world, Source.POLICY))
    assert world.commands
    assert peer.change("control", "deactivate")
    peer.until(lambda: not peer.node.count_subscribers("joint_states"))
    time.sleep(0.3)
    said = len(world.commands), len(world.steps)
    time.sleep(0.3)
    assert (len(world.commands), len(world.steps)) == said
    assert peer.change("control", "activate")


def test_it_plays_the_chunk_that_is_due_and_says_which(world):
    world.live(lambda: world.joints[0] > 0.3)
    acted = [messages.vector_of(m) for m in world.steps if messages.vector_of(m)["source"] == Source.POLICY]
    assert {values["candidate"] for values in acted} == {3}
    path = np.array([messages.joints_of(m, SPEC.names) for m in world.commands])
    assert (np.diff(path[:, 0]) >= -1e-9).all()
    assert path[:, 1:] == pytest.approx(np.tile(HOME[1:], (len(path), 1)), abs=1e-6)
    assert (np.diff([messages.stamp_ns(m.header.stamp) for m in world.commands]) > 0).all()


def test_silence_of_the_policy_holds_and_a_new_chunk_goes_on(world, peer):
    world.live(lambda: world.joints[0] > 0.1)
    peer.until(acting(world, Source.HOLD))
    assert world.why == "no_chunk"
    since = len(world.commands)
    peer.until(lambda: len(world.commands) > since + 30)
    rest = np.array([messages.joints_of(m, SPEC.names) for m in world.commands[-10:]])
    assert np.ptp(rest, axis=0).max() < 1e-3
    world.live(acting(world, Source.POLICY))


def test_silence_of_the_robot_holds(world, peer):
    world.live(lambda: world.joints[0] > 0.1)
    world.fall_silent()
    peer.until(lambda: world.steps and world.why == "joints_stale")


def test_a_stop_latches_until_it_is_reset_and_resumed(world, peer):
    modes = []
    peer.listen(String, "control/mode", lambda m, *_: modes.append(m.data), qos.LATCHED)
    world.live(acting(world, Source.POLICY))
    peer.trigger("control/stop")
    world.live(lambda: modes[-1:] == ["STOPPED"])
    with pytest.raises(RuntimeError, match="stopped"):
        peer.trigger("control/pause")
    since = len(world.steps)
    world.live(lambda: len(world.steps) > since + 15)
    assert world.last["source"] == Source.HOLD
    peer.trigger("control/reset_stop")
    world.live(lambda: modes[-1] == "PAUSED")
    peer.trigger("control/resume")
    world.live(acting(world, Source.POLICY))
    assert modes[-1] == "AUTONOMOUS"


def test_a_human_takes_over_and_hands_back(world, peer):
    human = peer.publisher(JointState, "human/command", qos.OFFER)
    world.live(acting(world, Source.POLICY))
    assert peer.call(SetBool, "control/take_over", SetBool.Request(data=True)).success
    stop = threading.Event()

    def drive():
        while not stop.wait(PERIOD / 2):
            human.publish(messages.joint_state(SPEC.names, world.joints + 0.01 * (np.arange(6) == 4), 1))

    thread = threading.Thread(target=drive)
    thread.start()
    try:  # what the policy would have done goes on being said
        world.live(lambda: acting(world, Source.HUMAN)() and np.isfinite(world.last["proposed/gripper"]))
    finally:
        stop.set()
        thread.join()
    world.live(acting(world, Source.HOLD))
    assert world.why == "human_silent"
    assert peer.call(SetBool, "control/take_over", SetBool.Request(data=False)).success
    world.live(acting(world, Source.POLICY))
    peer.destroy(human)


def test_three_malformed_chunks_in_a_row_stop_it(world, peer):
    world.live(acting(world, Source.POLICY))
    bad = JointTrajectory(joint_names=["elbow"])
    for _ in range(3):
        world.chunks.publish(bad)
        time.sleep(0.05)
    peer.until(lambda: world.why.startswith("stopped"))
    assert "rejected" in world.why
    peer.until(lambda stopped=world.stamp: world.stamp > stopped)
    peer.trigger("control/reset_stop")
    peer.trigger("control/resume")


def test_bounds_can_be_tightened_but_not_loosened_while_it_is_active(world, peer):
    with pytest.raises(RuntimeError, match="loosened"):
        peer.set_parameters("control", {"max_open_loop_s": 2.0})
    with pytest.raises(RuntimeError, match="deactivate first"):
        peer.set_parameters("control", {"joining": "blend"})
    assert peer.parameter("control", "max_open_loop_s") == 0.5
    peer.set_parameters("control", {"max_open_loop_s": 0.4})
    world.live(acting(world, Source.POLICY))
    assert peer.change("control", "deactivate")
    peer.set_parameters("control", {"max_open_loop_s": 0.5})
    assert peer.change("control", "activate")


def test_a_second_control_refuses_to_take_the_arm(world, peer, start, control):
    second = start("control_node", __node="understudy")
    assert peer.change("understudy", "configure")
    assert not peer.change("understudy", "activate")
    assert f"another control has the arm: process {control.pid} of this host" in second.errors[0]
    world.live(acting(world, Source.POLICY))
    assert peer.change("control", "deactivate")
    assert peer.change("understudy", "activate")
    second.kill()
    assert peer.change("control", "activate")  # a control that was killed is not waited for longer than its lease


def test_a_control_on_another_host_keeps_the_arm(start, peer):
    elsewhere = peer.node.create_publisher(JointState, "/far/joint_commands", qos.OFFER)
    process = start("control_node", __ns="/far")
    assert peer.change("/far/control", "configure")
    assert not peer.change("/far/control", "activate")
    assert "another node has the arm: /far/joint_commands is published by /peer" in process.errors[0]
    peer.destroy(elsewhere)
    assert peer.change("/far/control", "activate")
    process.stop()


def test_in_lockstep_each_period_of_the_robot_gets_one_answer_and_the_same_when_asked_again(start, peer):
    process = start("control_node", __ns="/step", lockstep=True, lockstep_replan=4)
    assert peer.change("/step/control", "configure")
    assert peer.change("/step/control", "activate")
    first = 5 * 10**9
    world = World(peer, "/step/", first)
    for i in range(12):
        stamp = first + round(i * 1e9 * PERIOD)
        world.tell(stamp)
        if i % 4 == 0:
            time.sleep(0.3)
            assert len(world.commands) == i  # it waits for a chunk, however long that takes
            world.chunk()
        peer.until(lambda i=i: len(world.commands) == i + 1)
        assert messages.stamp_ns(world.commands[-1].header.stamp) == stamp
    world.tell(stamp)
    peer.until(lambda: len(world.commands) == 13)
    assert np.array_equal(*(messages.joints_of(m, SPEC.names) for m in world.commands[-2:]))
    assert {messages.vector_of(m)["index"] for m in world.steps} == {0, 1, 2, 3}
    process.stop()


def test_a_message_larger_than_promised_is_dropped_before_it_is_read_and_counted(world, peer, control):
    world.live(acting(world, Source.POLICY))
    told = peer.hear(DiagnosticArray, "/diagnostics", qos.EVERY)
    huge = serialize_message(JointState(name=["a" * 10_000_000], position=[0.0]))
    publishers = [peer.publisher(JointState, t, qos.OFFER) for t in ("joint_states", "human/command")]
    before = control.memory_mb()
    for publisher in publishers * 5:
        publisher.publish(huge)
        peer.until(later(world.steps))

    def counted():
        values = {v.key: v.value for m in told for s in m.status if s.name == "/control" for v in s.values}
        return {"rejected/joint_states", "rejected/human/command"} <= set(values)

    peer.until(counted)
    assert control.memory_mb() - before < 120  # what DDS keeps for its largest sample, and no more
    assert any("bytes where at most" in line for line in control.log.splitlines())
    world.live(acting(world, Source.POLICY))
    for publisher in publishers:
        peer.destroy(publisher)
