"""hil_node and control_node over real DDS; the test is their robot, their policy, and the operator's gamepad."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ros_nodes import PATIENCE_S, said_so_far
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger
from test_control_node import World
from trajectory_msgs.msg import JointTrajectory

from vla_rl.hil.desk import Desk
from vla_rl.hil.episodes import EpisodeMark
from vla_rl.hil.help import Calibration, Signals
from vla_rl.ros import messages, qos
from vla_rl.ros.hil_feed import Decision
from vla_rl.ros.hil_node import HilNode
from vla_rl.types import Mode, Source

TOGGLE, SUCCESS, START = 0, 2, 7


class Pad:
    """A gamepad that says 50 times a second where its stick is."""

    def __init__(self, peer):
        self.axes, self.buttons, self.peer = [0.0] * 8, [0] * 8, peer
        self._joy = peer.node.create_publisher(Joy, "joy", qos.OFFER)
        self._unplugged = threading.Event()
        self._thread = threading.Thread(target=self._be)
        self._thread.start()

    def _be(self):
        while not self._unplugged.wait(0.02):
            self._joy.publish(Joy(axes=self.axes, buttons=self.buttons))

    def press(self, button):
        for down in (1, 0):
            self.buttons[button] = down
            time.sleep(0.1)

    def unplug(self):
        self._unplugged.set()
        self._thread.join()


@pytest.fixture(scope="module")
def graph(start, peer):
    nodes = {"control": start("control_node"), "hil": start("hil_node", device="gamepad", console=False)}
    for name in nodes:
        assert peer.change(name, "configure"), nodes[name].log
        assert peer.change(name, "activate"), nodes[name].log
    world = World(peer)
    world.begin()
    yield world
    world.fall_silent()


@pytest.fixture
def pad(graph, peer):
    found = Pad(peer)
    peer.until(lambda: peer.node.count_subscribers("joy") > 0)
    yield found
    found.unplug()


def source(world, wanted):
    return lambda: world.steps and world.last["source"] == wanted


def toggle(graph, pad, wanted):
    """Press until the arm has changed hands: on a loaded machine a gamepad may be lost at any time."""
    end = time.monotonic() + PATIENCE_S
    while not source(graph, wanted)():
        assert time.monotonic() < end, f"it never became {wanted!r}: {said_so_far()}"
        pad.press(TOGGLE)
        since = time.monotonic()
        graph.live(lambda since=since: source(graph, wanted)() or time.monotonic() > since + 2.0)


def test_a_button_takes_over_mid_chunk_the_stick_drives_and_the_same_button_hands_back(graph, pad, peer):
    graph.live(source(graph, Source.POLICY))
    toggle(graph, pad, Source.HUMAN)
    since = len(graph.steps)
    before = graph.joints.copy()
    pad.axes[4] = 1.0  # up
    peer.until(lambda: np.abs(graph.joints - before).max() > 0.1)
    acted = {messages.vector_of(m)["source"] for m in graph.steps[since:]}
    assert Source.HUMAN in acted
    assert Source.POLICY not in acted
    pad.axes[4] = 0.0
    toggle(graph, pad, Source.POLICY)


def test_the_policy_acts_no_more_from_the_edge_on_and_every_edge_is_told(graph, pad, peer):
    graph.live(source(graph, Source.POLICY))
    before = len(graph.steps)
    toggle(graph, pad, Source.HUMAN)
    steps = [messages.vector_of(m) for m in graph.steps[before:]]
    first = next(i for i, step in enumerate(steps) if step["mode"] == 2)
    assert Source.POLICY not in {step["source"] for step in steps[first:] if step["mode"] == 2}
    assert steps[first]["edges"] == steps[first - 1]["edges"] + 1
    assert steps[first][f"edge/{steps[first]['edges']:.0f}/age"] >= 0
    toggle(graph, pad, Source.POLICY)


def test_a_device_that_is_lost_holds_the_arm_until_somebody_takes_over_anew(graph, pad, peer):
    graph.live(source(graph, Source.POLICY))
    toggle(graph, pad, Source.HUMAN)
    pad.unplug()
    graph.live(source(graph, Source.HOLD))
    again = Pad(peer)
    since = len(graph.steps)
    graph.live(lambda: len(graph.steps) > since + 30)
    assert {messages.vector_of(m)["source"] for m in graph.steps[since:]} == {Source.HOLD}
    assert graph.why == "human_silent"
    toggle(graph, again, Source.HUMAN)
    toggle(graph, again, Source.POLICY)
    again.unplug()


def test_an_episode_is_what_the_operator_marks_and_a_second_mark_is_refused(graph, pad, peer):
    told = peer.hear(JointState, "episode/status", qos.LATCHED)
    pad.press(START)
    peer.until(lambda: told and messages.vector_of(told[-1])["recording"] == 1)
    pad.press(SUCCESS)
    peer.until(lambda: messages.vector_of(told[-1])["recording"] == 0)
    assert messages.vector_of(told[-1])["outcome"] == 1
    answer = peer.call(Trigger, "episode/failure", Trigger.Request())
    assert not answer.success
    assert "has ended already, with outcome success" in answer.message
    assert messages.vector_of(told[-1])["outcome"] == 1


@pytest.mark.parametrize("recorders", [0, 1])
def test_an_episode_that_nobody_records_is_told_to_the_operator(recorders):
    told, said = [], []
    topic = SimpleNamespace(publish=told.append, get_subscription_count=lambda: recorders)
    signals, desk = SimpleNamespace(episode=lambda *_: None), SimpleNamespace(say=lambda text, level: said.append(text))
    node = SimpleNamespace(_episodes=topic, _signals=signals, _seconds=0.0, _stamp=0, desk=desk)
    HilNode.episode(node, EpisodeMark(7))
    assert len(told) == 1
    assert said == ([] if recorders else ["nobody records: no recorder hears of episode 7"])


def test_what_strangers_publish_is_refused_and_the_operator_keeps_the_arm(graph, pad, peer):
    names = ["source", "mode"]
    strange = {
        (JointState, "control/step"): [JointState(), JointState(name=names, position=[np.inf, np.nan])],
        (JointState, "steering/values"): [
            messages.joint_state(["candidate_0"], np.ones(1), 1, frame_id="0 argmax"),  # a value without its spread
            messages.joint_state(["a"], np.ones(1), 2, frame_id="\u00b2 x"),
        ],
        (JointTrajectory, "steering/chunk"): [JointTrajectory()],
        (Image, "camera/front/image_raw"): [Image(), Image(height=1, width=70_000, step=210_000, encoding="rgb8")],
        (String, "control/mode"): [String(data="ASLEEP")],
    }
    strange[Image, "camera/front/image_raw"][1].data = bytes(210_000)
    for (kind, topic), all_of_it in strange.items():
        publisher = peer.publisher(kind, topic, qos.LATCHED if topic == "control/mode" else qos.EVERY)
        for message in (*all_of_it, b"", b"\x00\x01\x00\x00\xff\xff\xff\x7f"):
            publisher.publish(message)
        time.sleep(0.1)
        peer.destroy(publisher)
    graph.live(source(graph, Source.POLICY))
    toggle(graph, pad, Source.HUMAN)
    toggle(graph, pad, Source.POLICY)


def test_a_policy_in_trouble_is_not_paused_under_a_human_who_takes_over_just_now():
    asked = []
    ports = SimpleNamespace(control=lambda name, on: asked.append(name))
    desk, calibration = Desk(ports), Calibration(("elapsed",), (0.0,), (1.0,), 0.5, 0.1, 100)
    desk.moded(Mode.AUTONOMOUS)
    watching = SimpleNamespace(
        desk=desk, _calibration=calibration, _signals=Signals(np.zeros(6, bool)), _measured=np.zeros(6), **vars(ports)
    )
    HilNode._watch(watching, Decision(1_000_000_000))
    desk.take_over(True, "ann")  # control has not answered yet
    HilNode._watch(watching, Decision(3_000_000_000))
    assert asked == ["take_over"]
    desk.answered("take_over", False, "stopped")
    HilNode._watch(watching, Decision(4_000_000_000))
    assert asked == ["take_over", "pause"]


def test_a_policy_in_trouble_is_paused_and_the_operator_called(graph, peer, tmp_path):
    path = tmp_path / "help.json"
    Calibration(("elapsed",), (0.0,), (1.0,), 0.5, 0.1, 100).save(path)  # half a second is too long
    modes = peer.hear(String, "control/mode", qos.LATCHED)
    for step in ("deactivate", "cleanup"):
        assert peer.change("hil", step)
    peer.set_parameters("hil", {"ask_for_help": str(path)})
    for step in ("configure", "activate"):
        assert peer.change("hil", step)
    peer.until(lambda: modes)
    peer.trigger("control/pause")
    peer.trigger("control/resume")
    graph.live(lambda: modes[-1].data == "AUTONOMOUS")
    graph.live(lambda: modes[-1].data == "PAUSED")
