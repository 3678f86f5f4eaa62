"""Limits: what a robot's commands must keep to, as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.execute.chain import Chain
from vla_rl.types import Array, RobotSpec

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits of the commanded sequence, of which neighbours are `dt` apart.

    Attributes:
        names: of the joints, (J,).
        low, high: positions, (J,) [rad].
        velocity, acceleration, jerk: magnitudes, (J,) [rad/s], [rad/s^2], [rad/s^3].
        gripper: which joints open and close a gripper, (J,) bool.
        box: lower and upper corner of the tip's workspace, (2, 3) [m], base frame.
        chain: forward kinematics.
        dt: control period [s].
    """

    names: tuple[str, ...]
    low: Array
    high: Array
    velocity: Array
    acceleration: Array
    jerk: Array
    gripper: Mask
    box: Array
    chain: Chain
    dt: float

    @classmethod
    def from_spec(cls, spec: RobotSpec) -> Limits:
        """The limits of a robot.

        Raises:
            ValueError: a limit is missing, not finite or not positive; no limits, no motion. All faults at once.
        """
        faults = _faults(spec)
        if faults:
            raise ValueError(f"robot '{spec.name}' can not move safely: {'; '.join(faults)}")
        velocity, acceleration, jerk = np.array([(j.velocity, j.acceleration, j.jerk) for j in spec.joints]).T
        gripper, box = np.array([j.gripper for j in spec.joints]), np.array(spec.workspace)
        chain, dt = Chain(spec), 1.0 / spec.rate
        return cls(spec.names, spec.low, spec.high, velocity, acceleration, jerk, gripper, box, chain, dt)

    @property
    def unbounded(self) -> tuple[str, ...]:
        """Arm joints that the workspace says nothing of, since they do not move the tip: those of a second arm."""
        moving = np.isin(np.arange(len(self.names)), self.chain.joints) | self.gripper
        return tuple(name for name, bounded in zip(self.names, moving, strict=True) if not bounded)

    def excess(self, joints: Array) -> Array:
        """How far the tip is outside each face of its box, (..., 6) [m], zero inside, for joints (..., J) [rad]."""
        tip = self.chain.tip(joints)
        return np.maximum(np.concatenate([self.box[0] - tip, tip - self.box[1]], axis=-1), 0.0)

    def loosened(self, other: Limits) -> list[str]:
        """Where `other` allows more than this, by name."""
        more = {
            "low": other.low < self.low, "high": other.high > self.high, "velocity": other.velocity > self.velocity,
            "acceleration": other.acceleration > self.acceleration, "jerk": other.jerk > self.jerk,
        }  # fmt: skip
        found = [f"{name}.{what}" for what, which in more.items() for name in np.array(self.names)[which]]
        outside = (other.box[0] < self.box[0]).any() or (other.box[1] > self.box[1]).any()
        return found + (["workspace"] if outside else [])


def _faults(spec: RobotSpec) -> list[str]:
    """What is wrong with a robot's limits, one phrase each."""
    faults = [] if spec.joints else ["it has no joints"]
    if not (math.isfinite(spec.rate) and spec.rate > 0):
        faults.append(f"rate is {spec.rate}")
    for joint in spec.joints:
        if not (math.isfinite(joint.low) and math.isfinite(joint.high) and joint.low < joint.high):
            faults.append(f"{joint.name} runs from {joint.low} to {joint.high}")
        for what in ("velocity", "acceleration", "jerk"):
            value = getattr(joint, what)
            if not (math.isfinite(value) and value > 0):
                faults.append(f"{joint.name}.{what} is {value}")
    low, high = np.array(spec.workspace)
    if not (np.isfinite([low, high]).all() and (low < high).all()):
        faults.append(f"workspace runs from {low.tolist()} to {high.tolist()}")
    return faults
