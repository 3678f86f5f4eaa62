"""Measured: where the joints have been, and whether what is measured can be believed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque

import numpy as np

from vla_rl.execute.limits import Limits
from vla_rl.types import Array

HISTORY = 64
STILL = 0.01  # rad between two measurements
TWITCH = 0.05  # rad that an arm at rest may seem to move between two measurements


class Measured:
    """The newest measured joints, and some of their history.

    Attributes:
        joints: the newest, (J,) [rad], or None before the first.
        stamp_ns: its capture time, robot clock.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.forget()

    def forget(self) -> None:
        """As before the first measurement."""
        self.joints: Array | None = None
        self.stamp_ns, self._received_ns, self._moved = 0, 0, math.inf
        self._history: deque[tuple[int, Array]] = deque(maxlen=HISTORY)

    def valid(self, joints: Array) -> bool:
        """Whether this is one finite number a joint."""
        values = np.asarray(joints)
        return values.shape == self._limits.low.shape and bool(np.isfinite(values).all())

    def take(self, joints: Array, stamp_ns: int, received_ns: int, resting: bool) -> bool:
        """Take a valid measurement; returns whether the arm can not have moved there from the one before.

        Args:
            joints: (J,) [rad].
            stamp_ns: capture time, robot clock.
            received_ns: receipt, monotonic clock.
            resting: whether the arm was commanded to stand still.
        """
        joints, jumped = np.array(joints, dtype=np.float64), False
        if self.joints is not None:
            change = np.abs(joints - self.joints)[~self._limits.gripper]
            self._moved = float(change.max(initial=0.0))
            elapsed = max(stamp_ns - self.stamp_ns, 0) * 1e-9
            reach = 0.0 if resting else 1.5 * self._limits.velocity[~self._limits.gripper] * elapsed
            jumped = bool((change > reach + TWITCH).any())
        if jumped or stamp_ns < self.stamp_ns:
            self._history.clear()
        self._history.append((stamp_ns, joints))
        self.joints, self.stamp_ns, self._received_ns = joints, stamp_ns, received_ns
        return jumped

    def age(self, monotonic_ns: int) -> float:
        """Time since the newest was received [s]; infinite before the first."""
        return math.inf if self.joints is None else (monotonic_ns - self._received_ns) * 1e-9

    @property
    def still(self) -> bool:
        """Whether the arm's joints hardly moved between the last two measurements."""
        return self._moved < STILL

    def at(self, stamp_ns: int) -> Array | None:
        """The joints measured last at a time on the robot's clock, (J,) [rad]; None where that is not remembered."""
        place = bisect_right(self._history, stamp_ns, key=lambda entry: entry[0])
        return self._history[place - 1][1] if place else None

    def following_error(self, commands: deque[Array]) -> Array:
        """How far each arm joint is from all of some commands, (J,) [rad]; 0 for grippers, which hold things."""
        if self.joints is None or not commands:
            return np.zeros(len(self._limits.names))
        recent = np.stack(commands)
        error = np.maximum(recent.min(0) - self.joints, self.joints - recent.max(0))
        return np.where(self._limits.gripper, 0.0, np.maximum(error, 0.0))
