"""Mapping: what a device says to joint targets [rad], within the robot's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl.execute.actions import ChunkReader
from vla_rl.hil.device import Command
from vla_rl.kinematics import Kinematics, Pose
from vla_rl.types import Array, RobotSpec

FASTEST = 10.0  # of a twist [m/s], [rad/s]: no hand asks for more, and no solver could follow


@dataclass(frozen=True)
class MappingConfig:
    """How a device moves an arm.

    Attributes:
        lead: how far targets may run ahead of what the arm was commanded [rad]; it is the way it goes on after a key
            is let go.
        gripper_speed: of a gripper that opens or closes fully [rad/s].
    """

    lead: float = 0.15
    gripper_speed: float = 1.5


class Mapping:
    """Turns commands into joint targets; one that moves by speed goes on from where the arm is.

    Args:
        spec: the robot.
        kinematics: for twists; None refuses them.
        config: how.
    """

    def __init__(
        self, spec: RobotSpec, kinematics: Kinematics | None = None, config: MappingConfig | None = None
    ) -> None:
        self._spec, self._kinematics, self._config = spec, kinematics, config or MappingConfig()
        self._gripper, self._reader = np.array([joint.gripper for joint in spec.joints]), ChunkReader(spec)
        self._last: Array | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The robot's joints, (J,)."""
        return self._spec.names

    def rest(self) -> None:
        """The next command goes on from where the arm is then."""
        self._last = None

    def targets(self, command: Command, here: Array, dt: float) -> Array:
        """Joint targets (J,) [rad] of a command that holds for one period.

        Args:
            command: what the device says.
            here: what the arm was last commanded, (J,) [rad].
            dt: the period [s].

        Raises:
            ValueError: sizes that are not the robot's, a value that is not finite, targets that are far outside the
                limits, or a twist without kinematics.
        """
        if command.targets is not None:
            wanted = self._checked("targets", command.targets, len(here))
            if far := self._reader.far(wanted):  # within limits they would look like any others, also to control
                raise ValueError(f"a device's targets of {', '.join(far)} are far outside the limits: another unit?")
        else:
            wanted = self._moved(command, here if self._last is None else self._last, dt)
            wanted = np.clip(wanted, here - self._config.lead, here + self._config.lead)
        self._last = np.clip(wanted, self._spec.low, self._spec.high)
        return self._last

    def _moved(self, command: Command, start: Array, dt: float) -> Array:
        """Where a velocity or a twist leads from `start` within a period, (J,) [rad]."""
        if command.velocities is not None:
            return start + dt * self._checked("velocities", command.velocities, len(start))
        wanted = start
        if command.twist is not None and np.any(command.twist):
            twist = np.clip(self._checked("twist", command.twist, 6), -FASTEST, FASTEST)
            wanted = self._turned(twist, start, dt)
        opened = np.clip(command.gripper, -1.0, 1.0) * self._config.gripper_speed * dt
        return wanted + np.where(self._gripper, opened, 0.0)

    def _turned(self, twist: Array, start: Array, dt: float) -> Array:
        if self._kinematics is None:
            raise ValueError(f"robot '{self._spec.name}' has no kinematics: a twist can not move it")
        pose = self._kinematics.forward(start)
        return self._kinematics.inverse(
            Pose(pose.position + dt * twist[:3], _rotation(dt * twist[3:]) @ pose.rotation), start
        )

    def _checked(self, what: str, values: Array, size: int) -> Array:
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (size,) or not np.isfinite(values).all():
            raise ValueError(f"a device's {what} are {size} finite numbers, got {values}")
        return values


def _rotation(vector: Array) -> Array:
    """Rotation matrix (3, 3) of a rotation vector (3,) [rad] (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
