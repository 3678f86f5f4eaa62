"""What every node has in common: how it starts, what it refuses, how it ends."""

import ast
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import DescribeParameters
from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import serialize_message
from std_msgs.msg import String

import vla_rl.ros
from vla_rl.ros import qos
from vla_rl.ros.node import NodeMixin


@pytest.mark.parametrize(
    ("module", "parameters", "reason"),
    [
        ("control_node", {"joinning": "latest"}, "unknown parameter 'joinning' of control; there are: arm, joining"),
        ("control_node", {"joining": "sideways"}, "'sideways'; there are: latest"),
        ("control_node", {"max_open_loop_s": "soon"}, "'max_open_loop_s' of control takes a float"),
        ("control_node", {"max_open_loop_s": 99.0}, "max_open_loop_s"),
        ("control_node", {"arm": "so999"}, "so101"),
        ("robot_node", {"task": "juggle", "cameras": [""]}, "unknown task 'juggle'; there are: lift"),
        ("robot_node", {"cameras": ["ceiling"]}, "unknown camera 'ceiling'; there are: front, wrist"),
        ("robot_node", {"time": "slower"}, "there are: real, faster, lockstep"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_one_line_that_names_it_and_the_alternatives(
    start, module, parameters, reason
):
    process = start(module, **parameters)
    assert process.end() == 1
    (line,) = process.errors
    assert reason in line
    assert "Traceback" not in process.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_active_node_with_status_0(start, peer, number):
    process = start("control_node", __node=f"brief{number}", max_open_loop_s=1)  # a whole number is a float too
    assert peer.change(f"brief{number}", "configure")
    assert peer.change(f"brief{number}", "activate")
    process.send(number)
    assert process.end() == 0
    assert not process.errors


def test_parameters_are_described_with_ranges_and_health_is_told_once_a_second(start, peer):
    process = start("control_node")
    told = peer.hear(DiagnosticArray, "/diagnostics", qos.EVERY)
    request = DescribeParameters.Request(names=["max_open_loop_s", "joining"])
    open_loop, joining = peer.call(DescribeParameters, "control/describe_parameters", request, 60.0).descriptors
    assert open_loop.floating_point_range[0].to_value == 10.0
    assert "observation" in open_loop.description
    assert "latest" in joining.description
    peer.until(lambda: any(s.name == "/control" and s.message == "not active" for m in told for s in m.status))
    process.stop()


def test_no_node_hides_an_attribute_of_rclpys_own():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("bare", context=context)
    taken = set(vars(node)) | set(dir(LifecycleNode))
    node.destroy_node()
    rclpy.shutdown(context=context)
    for path in Path(vla_rl.ros.__file__).parent.glob("*node.py"):
        for part in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(part, ast.Attribute)
                and isinstance(part.ctx, ast.Store)
                and ast.unparse(part.value) == "self"
            ):
                assert part.attr not in taken, f"{path.name} assigns self.{part.attr}"


class Strict(NodeMixin):
    """Rejects and warns, and remembers what it logged."""

    def __init__(self):
        self.rejected, self._said, self.logged = Counter(), {}, []

    def get_logger(self):
        return SimpleNamespace(warning=self.logged.append)


def test_every_reason_of_a_rejection_is_logged_once_whatever_its_numbers_and_few_of_a_topic():
    node = Strict()
    for age in range(20):
        node.reject("joint_commands", f"{age / 8} s old")
        node.reject("joint_commands", "unknown joint 'a'")
        node.reject("human/command", "unknown joint 'a'")
    assert [line.split(" (")[0] for line in node.logged] == [
        "joint_commands: 0.0 s old", "joint_commands: unknown joint 'a'", "human/command: unknown joint 'a'",
    ]  # fmt: skip
    for letter in "bcdefghij":
        node.reject("joint_commands", f"unknown joint '{letter}'")
    assert len(node.logged) < 8
    assert node.rejected == {"joint_commands": 49, "human/command": 20}


class Listening(NodeMixin):
    """Subscribes to one topic, which so many others publish."""

    def __init__(self, *publishers):
        self._heard, self._there, self.came = {}, publishers, []
        self.subscribe(String, "words", lambda message, receipt: self.came.append(receipt.publisher), qos.EVERY)

    def create_subscription(self, kind, topic, receive, profile, raw):
        self.hear = lambda info: receive(serialize_message(String(data="go")), info)

    def resolve_topic_name(self, topic):
        return f"/{topic}"

    def get_publishers_info_by_topic(self, topic):
        assert topic == "/words"
        return [SimpleNamespace(endpoint_gid=list(gid)) for gid in self._there]


def test_a_publisher_that_the_middleware_does_not_tell_is_the_only_one_there_is_or_nobody():
    """Jazzy's rclpy has no `publisher_gid`."""
    for there, known in (((), b""), ((b"one",), b"one"), ((b"one", b"two"), b"")):
        node = Listening(*there)
        for info in ({}, {"publisher_gid": None}, {"publisher_gid": {"data": b"told"}}):
            node.hear(info)
        assert node.came == [known, known, b"told"]


def test_a_topic_that_is_subscribed_twice_counts_what_comes_on_either():
    node = Listening(b"one")
    first = node.hear
    node.subscribe(String, "words", lambda *_: None, qos.LATCHED)
    first({})
    node.hear({})
    assert node.heard["words"].count == 2
