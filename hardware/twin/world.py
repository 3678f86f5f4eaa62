"""Servos and the body that they move, in real time: the world goes on by itself, whether or not anybody speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_rl.hardware.twin.body import Body, Drive
from vla_rl.hardware.twin.servo import Servo
from vla_rl.types import Array

CATCH_UP_S = 0.25
HAND_SPEED = 2.5  # of somebody who moves the arm [rad/s]


class World:
    """A body, its servos, and the hand of somebody who may move it.

    Args:
        body: what moves.
        servos: one a joint.
        now: time at which it starts, monotonic clock [s].
    """

    def __init__(self, body: Body, servos: Sequence[Servo], now: float) -> None:
        self.body, self.servos = body, tuple(servos)
        self._start, self._done = now, 0
        self._hand: Array | None = None
        self.replace()

    def settle(self) -> None:
        """The servos hold the body where somebody else has put it."""
        for servo, position in zip(self.servos, self.body.joints, strict=True):
            servo.place(float(position))

    def replace(self) -> None:
        """Somebody put the body elsewhere at once: servos hold it there, and a hand goes on from there."""
        self._held = self.body.joints
        self.settle()

    def carry(self, joints: Array | None) -> None:
        """A hand moves the arm to joints (J,) [rad] and holds it there, stronger than the servos; None lets go."""
        if self._hand is None:
            self._held = self.body.joints
        elif joints is None:
            self.settle()
        self._hand = None if joints is None else np.clip(joints, self.body.spec.low, self.body.spec.high)

    @property
    def carried(self) -> bool:
        """Whether the hand has brought the arm where it wants it."""
        return self._hand is None or bool(np.abs(self.body.joints - self._hand).max() < 0.02)

    def advance(self, now: float) -> None:
        """Bring the world up to a time [s]; after a long stall it has stood still for the rest.

        Steps are done to their ends; what servos sense meanwhile lies between the last two: an encoder does not wait.
        """
        step_s = self.body.step_s
        due = math.ceil((now - self._start) / step_s)
        skipped = max(0, due - self._done - int(CATCH_UP_S / step_s))
        self._start += skipped * step_s
        for _ in range(due - skipped - self._done):
            self._step(self._start + self._done * step_s)
        part = (now - self._start) / step_s - (self._done - 1)
        for servo in self.servos:
            servo.look(min(max(part, 0.0), 1.0))

    def _step(self, now: float) -> None:
        """One step from a time on [s]."""
        step_s, body = self.body.step_s, self.body
        drives = [servo.drive(now, step_s) for servo in self.servos]
        body.advance(drives if self._hand is None else self._by_hand(self._hand))
        if self._hand is None:
            felt = np.stack([body.joints, body.velocities, body.torques], axis=1).tolist()
            for servo, (position, velocity, torque) in zip(self.servos, felt, strict=True):
                servo.feel(position, velocity, torque, step_s)
        else:
            self.settle()
        self._done += 1

    def _by_hand(self, goal: Array) -> list[Drive]:
        most = HAND_SPEED * self.body.step_s
        self._held = self._held + np.clip(goal - self._held, -most, most)
        return [Drive(float(q)) for q in self._held]
