"""Exits: what becomes of an arm when its program ends, in whatever way. It is announced at the start and at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from vla_rl.robot import Fault, Sensed
from vla_rl.types import Array, RobotSpec

EXITS = {
    "hold": "it goes on holding, with its torque on",
    "lower": "it goes slowly to its resting pose, then its torque is cut",
    "release": "its torque is cut where it is: it falls",
}
LOWERING = 0.5  # [rad/s]
SETTLE_S = 0.3
TRIES = 5


class Leaving(Protocol):
    """The arm that is left."""

    @property
    def spec(self) -> RobotSpec:
        """Its description."""

    @property
    def fault(self) -> str:
        """What is wrong with it, "" where nothing is."""

    @property
    def rest(self) -> Array:
        """Where it may be lowered to, (J,) [rad]."""

    @property
    def resting(self) -> bool:
        """Whether that is known to be a place where it lies."""

    def sense(self) -> Sensed:
        """Where it is."""

    def command(self, targets: Array) -> Array:
        """Go there."""

    def hold(self) -> Array:
        """Stay."""


class Torque(Protocol):
    """What can let go of the arm."""

    @property
    def name(self) -> str:
        """For messages."""

    def release(self) -> None:
        """Cut the torque.

        Raises:
            Fault: it is not cut, or not everywhere; it says what is true.
        """


def leave(arm: Leaving, torque: Torque, how: str, say: Callable[[str], None]) -> None:
    """Leave an arm: hold it, lower it, or cut its torque. An arm with a fault is left as it is."""
    if arm.fault:
        say(f"exit: {torque.name} has a fault ({arm.fault}): its torque is left as it is")
        return
    try:
        if how == "lower" and not arm.resting:
            how = "hold"
            say("exit: the arm was found holding, so nobody knows where it rests: it is not lowered")
        say(f"exit: {torque.name}: {EXITS[how]}")
        _surely(arm, arm.hold)
        if how == "lower":
            _lower(arm)
    except Fault as fault:
        say(f"exit: {fault}: its torque is left as it is")
        return
    if how == "hold":
        return
    try:
        torque.release()
    except Fault as fault:
        say(f"exit: {fault}")


def _lower(arm: Leaving) -> None:
    """Go to the resting pose on a straight line through joint space."""
    period = 1.0 / arm.spec.rate
    here, there = arm.sense().joints, arm.rest
    steps = max(1, int(np.ceil(np.abs(there - here).max() / (LOWERING * period))))
    start = time.monotonic()
    for step in range(1, steps + 1):
        _surely(arm, partial(arm.command, here + (there - here) * step / steps))
        time.sleep(max(0.0, start + step * period - time.monotonic()))
    time.sleep(SETTLE_S)


def _surely(arm: Leaving, act: Callable[[], object]) -> None:
    """Do it, again where the line was busy: an arm is not left standing for one command that did not get through.

    Raises:
        Fault: the arm has one, or nothing gets through.
    """
    for left in reversed(range(TRIES)):
        try:
            act()
            return
        except Fault:
            if arm.fault or not left:
                raise
