"""Joint states of several broadcasters, whether the middleware tells them apart or not (Jazzy's rclpy does not)."""

from types import SimpleNamespace

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from vla_rl.hardware.joint_states import JointStates

NAMES = ("a", "b", "c")


class Topic:
    """A node that subscribes, and who publishes to it."""

    def __init__(self, told):
        self._told = told

    def create_subscription(self, kind, topic, take, qos, raw):
        self._take = take

    def resolve_topic_name(self, topic):
        return topic

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))

    def say(self, who, **positions):
        message = JointState(name=list(positions), position=list(positions.values()))
        self._take(serialize_message(message), {"publisher_gid": {"data": who}} if self._told else {})


@pytest.mark.parametrize("told", [True, False], ids=["told apart", "nameless"])
def test_broadcasters_in_lock_step_are_all_heard_and_of_each_the_newest_counts(told):
    topic = Topic(told)
    states = JointStates(topic, "joint_states", NAMES, None)
    for step in range(50):
        topic.say(b"one", a=step, b=step + 0.5)
        topic.say(b"two", c=-step)
    assert states.missing() == []
    assert states.sensed().joints.tolist() == [49, 49.5, -49]
    topic.say(b"one", a=7, b=7)
    assert states.sensed().joints.tolist() == [7, 7, -49]
