"""A robot's sensors for the tests of policy and steering: joints and cameras at 30 Hz, with switches for what fails."""

from __future__ import annotations

import threading
import time

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos

SPEC = arm_spec("so101")
CAMERAS = ("front", "wrist")


class Body:
    """Publishes in a thread of its own; `dead` names streams that have fallen silent."""

    def __init__(self, peer, compressed=False):
        self.peer, self.dead, self.stamps = peer, {"joint_states", *CAMERAS}, []
        self._picture = messages.compressed if compressed else messages.image
        kind, topic = (CompressedImage, "compressed") if compressed else (Image, "image_raw")
        node = peer.node
        self._joints = node.create_publisher(JointState, "joint_states", qos.OFFER)
        self._cameras = {c: node.create_publisher(kind, f"camera/{c}/{topic}", qos.OFFER) for c in CAMERAS}
        self.volatile = node.create_publisher(String, "instruction", qos.OFFER)
        self.latched = node.create_publisher(String, "instruction", qos.LATCHED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        random = np.random.default_rng(0)
        while not self._stop.wait(1 / 30):
            stamp = time.time_ns()
            self.stamps.append(stamp)
            if "joint_states" not in self.dead:
                self._joints.publish(messages.joint_state(SPEC.names, np.zeros(6), stamp))
            for camera in set(CAMERAS) - self.dead:
                picture = random.integers(0, 256, (96, 96, 3), np.uint8)
                self._cameras[camera].publish(self._picture(picture, stamp, camera))

    def close(self):
        self._stop.set()
        self._thread.join()
        self.peer.destroy(self._joints, *self._cameras.values(), self.volatile, self.latched)


class Ear:
    """The newest diagnostics of a node."""

    def __init__(self, peer, name):
        from diagnostic_msgs.msg import DiagnosticArray

        self._heard, self._name = peer.hear(DiagnosticArray, "/diagnostics"), name

    @property
    def all(self):
        return [status for message in self._heard for status in message.status if status.name == self._name]

    @property
    def summary(self):
        return self.all[-1].message if self.all else ""

    @property
    def values(self):
        return {pair.key: pair.value for pair in self.all[-1].values} if self.all else {}


def stamp(message):
    """When a message says it was captured [ns]."""
    return messages.stamp_ns(message.header.stamp)


def flood(publisher, make, count):
    """Publish `count` messages, those of a generator again and again."""
    messages = list(make())
    for i in range(count):
        publisher.publish(messages[i % len(messages)])
        time.sleep(0.002)
