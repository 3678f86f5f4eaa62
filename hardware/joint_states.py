"""JointStates: the newest of each joint, from however many broadcasters publish them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState

from vla_rl.robot import Sensed
from vla_rl.types import Array

MAX_SKEW_S = 0.5  # content of another time: the clocks of two hosts differ
_NAMELESS = 256  # messages kept between two looks where nobody tells whose they are (Jazzy's rclpy)


class JointStates:
    """Subscribes joint states; a broadcaster at 1 kHz costs no more than one at 30 Hz, for only what is asked is read.

    That is the newest of each publisher, or all that came where the middleware does not tell them apart.

    Args:
        node: whose subscription it is; somebody spins it.
        topic: of sensor_msgs/JointState; messages may have some of the joints, others, and any order.
        names: the robot's joints.
        qos: of the subscription.

    Attributes:
        refused: messages with a value that is not finite, or without positions.
    """

    def __init__(self, node: Any, topic: str, names: Sequence[str], qos: Any) -> None:
        self._node, self._names, self._lock = node, list(names), Lock()
        self._heard: dict[bytes, deque[tuple[int, bytes]]] = {}  # of each publisher: when it came, still serialised
        self._positions, self._velocities = np.full(len(names), np.nan), np.zeros(len(names))
        self._stamps, self._came = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        self._others: set[str] = set()
        self.refused, self.topic = 0, node.resolve_topic_name(topic)
        node.create_subscription(JointState, topic, self._take, qos, raw=True)

    def _take(self, data: bytes, info: Any) -> None:
        publisher = bytes((info.get("publisher_gid") or {}).get("data", b""))
        with self._lock:
            kept = self._heard.setdefault(publisher, deque(maxlen=1 if publisher else _NAMELESS))
            kept.append((time.monotonic_ns(), data))

    def sensed(self) -> Sensed | None:
        """All joints; the stamp is the oldest one's. None until every joint was heard."""
        self._read()
        if np.isnan(self._positions).any():
            return None
        return Sensed(self._positions.copy(), self._velocities.copy(), int(self._stamps.min()))

    def missing(self) -> list[str]:
        """Joints that nobody spoke of."""
        self._read()
        return [name for name, value in zip(self._names, self._positions, strict=True) if np.isnan(value)]

    def story(self) -> str:
        """What was heard instead, for an error."""
        return f"it has: {', '.join(sorted(self._others)) or 'nothing'}; refused: {self.refused}"

    def age(self, now_ns: int) -> float:
        """How long ago the joint that is silent longest was heard, monotonic clock [s]."""
        self._read()
        return float((now_ns - self._came.min()) * 1e-9)

    def silent(self, now_ns: int, allowed_s: float) -> str:
        """Who said nothing for so long [s], or spoke of another time; "" where nobody did."""
        if (age := self.age(now_ns)) > allowed_s:
            late = [name for name, at in zip(self._names, self._came, strict=True) if (now_ns - at) * 1e-9 > allowed_s]
            return f"{self.topic} has said nothing of {', '.join(late)} for {age:.2f} s: is ros2_control still there?"
        skew = (self._node.get_clock().now().nanoseconds - int(self._stamps.min())) * 1e-9 - age
        if abs(skew) > MAX_SKEW_S:
            return f"{self.topic} is stamped {skew:.1f} s away from this host's clock: synchronise the clocks (chrony)"
        return ""

    def _read(self) -> None:
        """Take over what came since the last time."""
        with self._lock:
            new = sorted(chain.from_iterable(self._heard.values()))
            self._heard.clear()
        for at_ns, data in new:
            try:
                self._merge(deserialize_message(data, JointState), at_ns)
            except ValueError:
                self.refused += 1

    def _merge(self, message: JointState, at_ns: int) -> None:
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        positions, velocities = np.array(message.position), np.array(message.velocity)
        if len(positions) != len(message.name):
            raise ValueError("as many positions as names")
        where = {name: i for i, name in enumerate(message.name)}
        self._others.update(name for name in where if name not in self._names)
        ours = [joint for joint, name in enumerate(self._names) if name in where]
        theirs = [where[self._names[joint]] for joint in ours]
        if not np.isfinite(positions[theirs]).all():
            raise ValueError("a position that is not finite")
        self._velocities[ours] = self._speeds(ours, theirs, positions, velocities, stamp)
        self._positions[ours], self._came[ours] = positions[theirs], at_ns
        self._stamps[ours] = stamp or self._node.get_clock().now().nanoseconds

    def _speeds(self, ours: list[int], theirs: list[int], positions: Array, velocities: Array, stamp: int) -> Array:
        """Velocities as they are told, or from the last two positions where they are not [rad/s]."""
        if len(velocities) == len(positions) and np.isfinite(velocities[theirs]).all():
            return np.asarray(velocities[theirs])
        seconds = (stamp - self._stamps[ours]) * 1e-9
        moved = np.nan_to_num(positions[theirs] - self._positions[ours])
        return np.where((seconds > 1e-4) & (seconds < 1.0), moved / np.where(seconds > 1e-4, seconds, 1.0), 0.0)
