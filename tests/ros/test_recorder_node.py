"""The recorder as a process: what goes over the wire is in the file, and it leaves in one line or with everything."""

import os
import signal
import time

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter, ParameterEvent, ParameterType, ParameterValue
from ros_nodes import Peer, Process
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vla_rl.record import cdr
from vla_rl.record.folder import SessionFolder
from vla_rl.record.mcap_file import read
from vla_rl.ros import messages, qos
from vla_rl.ros.graph_parameters import Graph


class Operator:
    """A peer that sends frames and joints, and tells what episodes there are."""

    def __init__(self):
        self.peer = Peer("operator")
        self.marks = self.peer.publisher(JointState, "episode/status", qos.LATCHED)
        self.frames = self.peer.publisher(Image, "camera/front/image_raw", qos.OFFER)
        self.joints = self.peer.publisher(JointState, "joint_states", qos.OFFER)
        self.sent = []
        self.said = self.peer.hear(JointState, "recorder/status", qos.LATCHED)

    def mark(self, recording, outcome=0, ordinal=0, note="", discarded=0):
        values = {"ordinal": ordinal, "recording": recording, "outcome": outcome, "discarded": discarded}
        self.marks.publish(messages.vector(values | {"human_s": 0.0, "takeovers": 0.0}, time.time_ns(), note))

    def send(self, count):
        for _ in range(count):
            stamp = time.time_ns()
            picture = np.full((24, 32, 3), len(self.sent) % 256, np.uint8)
            self.frames.publish(messages.image(picture, stamp, "front"))
            self.joints.publish(messages.joint_state(["a"], np.zeros(1), stamp))
            self.sent.append(stamp)
            time.sleep(0.01)

    def until_said(self, words):
        self.peer.until(lambda: any(words in m.header.frame_id for m in self.said), f"the recorder says {words}")


def begin(root, **parameters):
    given = {"session": str(root), "cameras": ["front"], "dataset": False, "min_free_gb": 0.0, "low_water_mb": 0.0}
    process = Process("recorder_node", **(given | parameters))
    operator = Peer("asker")
    assert operator.change("recorder", "configure"), process.log
    return process, operator


@pytest.fixture
def recording(tmp_path):
    process, asker = begin(tmp_path / "s")
    assert asker.change("recorder", "activate"), process.log
    operator = Operator()
    yield process, operator, tmp_path / "s"
    operator.peer.close()
    asker.close()
    process.kill()


def test_what_was_sent_is_in_the_file_with_its_time_and_its_pixels(recording):
    process, operator, root = recording
    operator.send(5)
    operator.mark(1.0)
    operator.until_said("recording episode 000000")
    operator.sent.clear()
    operator.send(40)
    operator.mark(0.0, outcome=1, note="nice")
    operator.until_said("episode 000000: success")
    process.stop()
    assert process.errors == []
    (entry,) = SessionFolder(root).episodes()
    frames = [e for e in read(entry.path) if e.topic == "camera/front/compressed"]
    counts = entry.meta["topics"]["camera/front/image_raw"]
    stamps = [cdr.stamp_ns(e.data) for e in frames]
    assert counts["in"] == counts["out"] == len(frames)
    assert len(set(stamps) & set(operator.sent)) + counts["lost"] == 40
    assert counts["lost"] == 0 or entry.meta["damage"]
    assert all(e.sequence > 0 for e in frames)  # the publisher's own count, by which a loss would be known
    assert entry.meta["notes"] == ["nice"]
    assert SessionFolder(root).problems(thorough=True) == []


def test_asked_to_leave_it_completes_what_is_under_way(recording):
    process, operator, root = recording
    operator.mark(1.0)
    operator.until_said("recording")
    operator.send(10)
    process.send(signal.SIGTERM)
    process.send(signal.SIGTERM)
    assert process.end() == 0, process.log
    assert process.errors == []
    (entry,) = SessionFolder(root).episodes()
    assert (entry.meta["outcome"], entry.path.with_suffix(".json").is_file()) == ("unknown", True)
    assert SessionFolder(root).problems(thorough=True) == []


def test_what_strangers_publish_neither_ends_it_nor_the_episode(recording):
    process, operator, root = recording
    operator.mark(1.0)
    operator.until_said("recording")
    notes = operator.peer.publisher(String, "episode/note", qos.EVERY)
    for strange in (b"", b"\x00\x01\x00\x00", b"\x00\x01\x00\x00\xff\xff\xff\x7fabc"):
        notes.publish(strange)
        operator.marks.publish(strange)
    operator.mark(np.inf)
    operator.mark(0.0, outcome=np.nan)
    operator.mark(0.0, outcome=9)
    operator.send(10)
    kept = root / "000000.mcap"
    operator.peer.every(
        0.2, lambda: notes.publish(String(data="it was nice")), lambda: b"it was nice" in kept.read_bytes()
    )
    operator.mark(0.0, outcome=2)
    operator.until_said("episode 000000: failure")
    process.stop()
    assert process.errors == []
    assert "is not finite" in process.log
    (entry,) = SessionFolder(root).episodes()
    assert "it was nice" in entry.meta["notes"]
    assert SessionFolder(root).problems(thorough=True) == []


def test_marks_that_follow_one_another_at_once_are_all_followed(recording):
    _, operator, root = recording
    for ordinal in range(6):
        operator.mark(1.0, ordinal=ordinal)
        operator.mark(0.0, ordinal=ordinal, outcome=1 + ordinal % 2)
    operator.peer.until(lambda: len(SessionFolder(root).episodes()) == 6, "six episodes")
    assert [e.meta["outcome"] for e in SessionFolder(root).episodes()] == ["success", "failure"] * 3


def test_of_an_operator_that_was_started_again_it_keeps_the_episodes_apart_and_hears_late_marks(recording):
    _, operator, root = recording
    operator.mark(1.0)
    operator.until_said("recording episode 000000")
    again = Operator()
    again.mark(1.0)
    again.until_said("recording episode 000001")
    again.mark(0.0, outcome=1)
    again.until_said("episode 000001: success")
    again.mark(0.0, outcome=2)
    again.until_said("episode 000001: failure")
    again.peer.close()
    assert [e.meta["outcome"] for e in SessionFolder(root).episodes()] == ["unknown", "failure"]


def test_killed_and_started_again_it_goes_on_by_itself(recording):
    process, operator, root = recording
    operator.mark(1.0)
    operator.until_said("recording")
    operator.send(30)
    before = os.path.getsize(root / "000000.mcap")
    process.kill()
    assert before > 0
    again, asker = begin(root)
    assert asker.change("recorder", "activate"), again.log
    assert "000000.mcap: was open" in again.log
    operator.peer.until(
        lambda: (root / "000001.mcap").exists(), "the rest of the episode, of which nobody told it anew"
    )
    again.stop()
    asker.close()
    assert [e.number for e in SessionFolder(root).episodes()] == [0, 1]


class Answering:
    """Stands for a node and its services: every parameter asked for is its name, and asked are remembered."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        return lambda *_, **__: self

    def service_is_ready(self):
        return False

    def call_async(self, request):
        self.asked += request.names
        return self

    def add_done_callback(self, then):
        then(self)

    def result(self):
        return self

    @property
    def values(self):
        return [ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=name) for name in self.asked]

    def resolve_topic_name(self, name):
        return f"/{name}"


def test_the_consoles_secret_is_neither_asked_for_nor_recorded():
    node = Answering()
    graph = Graph(node)
    graph._listed("hil", ["host", "token", "device"])
    secret = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="hunter2")
    changed = [Parameter(name=name, value=secret) for name in ("token", "tape")]
    graph._changed(ParameterEvent(node="/hil", changed_parameters=changed))
    assert node.asked == ["host", "device"]
    assert graph.about()["graph"]["hil"] == {"host": "host", "device": "device", "tape": "hunter2"}


def test_a_second_recorder_of_the_session_is_refused_in_one_line(recording):
    _, _, root = recording
    second = Process("recorder_node", session=str(root), cameras=["front"], min_free_gb=0.0, __node="second")
    asker = Peer("another")
    assert asker.change("second", "configure")
    assert not asker.change("second", "activate")
    assert len(second.errors) == 1
    assert "is being written by another process" in second.errors[0]
    second.stop()
    asker.close()


def test_without_room_it_refuses_and_when_room_ends_it_ends_in_one_line(tmp_path):
    process, asker = begin(tmp_path / "s", min_free_gb=900_000.0)
    assert not asker.change("recorder", "activate")
    assert "free some space" in process.errors[0]
    process.stop()
    process, _ = begin(tmp_path / "s", low_water_mb=999_999.0, always=True)
    asker.change("recorder", "activate")
    assert process.end() == 1
    assert len(process.errors) == 1
    assert "free some space" in process.errors[0]
    asker.close()


def test_how_the_graph_was_set_up_goes_with_the_episode(tmp_path):
    root = tmp_path / "s"
    control = Process("control_node", joining="latest")
    process, asker = begin(root)
    assert asker.change("recorder", "activate"), process.log
    operator = Operator()
    words = operator.peer.publisher(String, "instruction", qos.LATCHED)
    words.publish(String(data="lift the red cube"))
    found = {}

    def known():
        operator.mark(1.0, ordinal=len(found))
        time.sleep(0.3)
        operator.mark(0.0, ordinal=len(found))
        episodes = SessionFolder(root).episodes()
        found.update({e.number: list(read(e.path)) for e in episodes})
        return any(b'"joining": "latest"' in entries[0].data for entries in found.values())

    operator.peer.every(0.3, lambda: None, known)
    newest = found[max(found)]
    assert newest[0].topic == "session"
    assert any(cdr.decode(e.data, cdr.STRING).data == "lift the red cube" for e in newest if e.topic == "instruction")
    process.stop()
    control.stop()
    operator.peer.close()
    asker.close()
