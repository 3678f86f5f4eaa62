"""Cameras that are ROS topics: the newest picture of each, with the stamp of its capture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from vla_rl.robot import Frame

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
Decode = Callable[[Any], Any]


class ImageTopics:
    """Subscribes image topics of any publisher; a picture is decoded only when somebody asks for it.

    Args:
        node: whose subscriptions they are; somebody spins it.
        topics: camera name to topic; `.../compressed` carries compressed pictures.
        raw, compressed: decode a sensor_msgs Image and a CompressedImage to (H, W, 3) uint8 RGB, or raise ValueError.
        silent_s: a camera without pictures for so long has stopped [s].

    Attributes:
        refused: what was wrong with the last picture that could not be decoded, by camera.
    """

    def __init__(
        self, node: Any, topics: Mapping[str, str], raw: Decode, compressed: Decode, silent_s: float = 0.15
    ) -> None:
        self._silent_ns, self._lock = round(silent_s * 1e9), Lock()
        self._heard: dict[str, tuple[int, bytes]] = {}
        self._frames: dict[str, Frame] = {}
        self._began_ns, self.topics, self.refused = time.monotonic_ns(), dict(topics), dict[str, str]()
        self._kinds: dict[str, tuple[Any, Decode]] = {}
        for name, topic in topics.items():
            self._kinds[name] = (CompressedImage, compressed) if topic.endswith("/compressed") else (Image, raw)
            node.create_subscription(self._kinds[name][0], topic, self._take(name), NEWEST, raw=True)

    def _take(self, name: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            with self._lock:
                self._heard[name] = (time.monotonic_ns(), data)

        return take

    def frames(self) -> dict[str, Frame]:
        """The newest picture of each camera that has not stopped."""
        stopped = self.stopped()
        with self._lock:
            fresh, self._heard = self._heard, {name: (at, b"") for name, (at, _) in self._heard.items()}
        for name, (_, data) in fresh.items():
            if data:
                self._decode(name, data)
        return {name: frame for name, frame in self._frames.items() if name not in stopped}

    def stopped(self) -> list[str]:
        """Cameras that sent nothing for `silent_s`, or never."""
        now = time.monotonic_ns()
        return [name for name in self.topics if now - self._since(name) > self._silent_ns]

    def _since(self, name: str) -> int:
        return self._heard[name][0] if name in self._heard else self._began_ns

    def _decode(self, name: str, data: bytes) -> None:
        kind, decode = self._kinds[name]
        try:
            message = deserialize_message(data, kind)
            stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
            self._frames[name] = Frame(decode(message), stamp or time.time_ns())
            self.refused.pop(name, None)
        except ValueError as error:
            self._frames.pop(name, None)
            self.refused[name] = str(error)
