"""What commands do to an arm: delay, a servo's ramp, MuJoCo; the forward model that system identification inverts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.types import Array, RobotSpec

Stamps = NDArray[np.int64]
_SUDDEN = 1e-5  # a ramp so steep that a goal is reached within a step [s^2/rad]


class Simulate(Protocol):
    """An arm in simulation, in many variants at once: `vla_rl.sim.servo_replay.ServoReplay`.

    Attributes:
        spec: the joints, (J,).
        step_s: length of an engine step [s].
        middle, reach: a swing that keeps it in the air, (J,) [rad].
    """

    spec: RobotSpec
    step_s: float
    middle: Array
    reach: Array

    def __call__(self, setpoints: Array, gains: Array, start: Array) -> Array:
        """Joints (P, T, J) [rad] of setpoints (P, T, J) [rad], gains (P, J) and joints (J,) at the start."""


@dataclass(frozen=True, eq=False)
class Motion:
    """A stretch of driving, on one clock.

    Attributes:
        asked_ns: when targets were sent, (N,) [ns], growing.
        targets: (N, J) [rad].
        seen_ns: when joints were so, (M,) [ns], growing.
        joints: (M, J) [rad].
    """

    asked_ns: Stamps
    targets: Array
    seen_ns: Stamps
    joints: Array


@dataclass(frozen=True)
class Servo:
    """How an arm differs from its model.

    Attributes:
        delay_s: from a target's stamp until the servos follow it [s].
        gain: multiple of the model's stiffness and damping.
        ramp: inverse of the acceleration with which a servo moves its setpoint to a goal [s^2/rad]; 0 for at once.
        lag_s: from when joints were so until the stamp that they carry [s].
    """

    delay_s: float = 0.0
    gain: float = 1.0
    ramp: float = 0.0
    lag_s: float = 0.0


def setpoints(motion: Motion, servos: Sequence[Servo], starts_ns: Array, step_s: float) -> Array:
    """Where the servos pull in each engine step, (P, T, J) [rad].

    Args:
        motion: whose targets.
        servos: delays and ramps, (P,).
        starts_ns: when each step starts, (T,) [ns].
        step_s: length of a step [s].
    """
    goals = np.stack([_delayed(motion, servo.delay_s, starts_ns, step_s) for servo in servos])
    return _ramped(goals, np.array([servo.ramp for servo in servos]), step_s)


def _delayed(motion: Motion, delay_s: float, starts_ns: Array, step_s: float) -> Array:
    """The goal in force in each step, (T, J) [rad]; where it changes within one, by how long each was."""
    due = motion.asked_ns + delay_s * 1e9
    held = np.searchsorted(due, starts_ns, side="right") - 1
    later = np.minimum(held + 1, len(due) - 1)
    part = np.where(later > held, 1.0 - (due[later] - starts_ns) / (step_s * 1e9), 0.0).clip(0.0, 1.0)[:, None]
    now = np.where(held[:, None] >= 0, motion.targets[held.clip(0)], motion.joints[0])
    return np.asarray((1.0 - part) * now + part * motion.targets[later])


def _ramped(goals: Array, ramps: Array, step_s: float) -> Array:
    """Goals (P, T, J) [rad] as servos approach them: trapezoids of velocity, of accelerations 1 / ramps (P,)."""
    inverse = np.maximum(ramps, _SUDDEN)[:, None]
    most = step_s / inverse
    position, velocity = goals[:, 0].copy(), np.zeros_like(goals[:, 0])
    path = np.empty_like(goals)
    for i in range(goals.shape[1]):
        away = goals[:, i] - position
        wanted = np.copysign(np.sqrt(2.0 * np.abs(away) / inverse), away)
        velocity += np.clip(wanted - velocity, -most, most)
        there = (np.abs(velocity) * step_s >= np.abs(away)) & (velocity * away >= 0)
        np.copyto(velocity, away / step_s, where=there)
        position += velocity * step_s
        path[:, i] = position
    return path


def replayed(motion: Motion, servos: Sequence[Servo], simulate: Simulate) -> Array:
    """What the arm would have done with each servo, at the stamps of its joints, (P, M, J) [rad]."""
    first_ns = begin(motion)
    count = int(np.ceil((motion.seen_ns[-1] - first_ns) / (simulate.step_s * 1e9))) + 1
    starts = np.asarray(first_ns + np.arange(count) * (simulate.step_s * 1e9), np.float64)
    pulls = setpoints(motion, servos, starts, simulate.step_s)
    gains = np.array([[servo.gain] * motion.joints.shape[1] for servo in servos])
    first = motion.joints[min(int(np.searchsorted(motion.seen_ns, first_ns)), len(motion.joints) - 1)]
    joints = simulate(pulls, gains, first)
    ends = starts + simulate.step_s * 1e9
    seen = [np.asarray(motion.seen_ns - servo.lag_s * 1e9) for servo in servos]
    return np.stack([_between(times, ends, path) for times, path in zip(seen, joints, strict=True)])


def _between(wanted: Array, times: Array, path: Array) -> Array:
    """A path (T, J) at other times (M,), (M, J)."""
    return np.stack([np.interp(wanted, times, column) for column in path.T], axis=1)


def begin(motion: Motion) -> int:
    """When both commands and joints are there [ns]."""
    return int(max(motion.asked_ns[0], motion.seen_ns[0]))
