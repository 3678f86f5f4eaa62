"""What servos move: any object with the protocol `Body`. A puppet without physics stands in for an arm on a string."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from vla_rl.types import Array, Image, RobotSpec

STALL_TORQUE = 2.94  # STS3215 at 12 V [Nm]


@dataclass(frozen=True)
class Drive:
    """What a servo's motor does to its joint.

    Attributes:
        target: where it pulls [rad].
        stiffness, damping: multiples of the gains that the body's model has.
        torque: the most that it gives [Nm]; 0 lets go.
    """

    target: float
    stiffness: float = 1.0
    damping: float = 1.0
    torque: float = STALL_TORQUE


class Body(Protocol):
    """Joints with a motor each, in steps of constant length.

    Attributes:
        spec: the joints, (J,), and their limits.
        step_s: length of a step [s].
    """

    spec: RobotSpec
    step_s: float

    @property
    def joints(self) -> Array:
        """Positions, (J,) [rad]."""

    @property
    def velocities(self) -> Array:
        """(J,) [rad/s]."""

    @property
    def torques(self) -> Array:
        """What the motors give, (J,) [Nm]."""

    def advance(self, drives: Sequence[Drive]) -> None:
        """One step, with one drive a joint."""

    def close(self) -> None:
        """Let go of renderers and the like."""


class Painter(Protocol):
    """Draws what a stage looked like; of one thread alone."""

    def draw(self, snapshot: Any, camera: str) -> Image:
        """A picture, (H, W, 3) uint8 RGB."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class Stage(Protocol):
    """What a body has besides where it stands in front of a task."""

    cameras: tuple[str, ...]
    start: Array  # where episodes start, (J,) [rad]

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None, place_arm: bool = True) -> None:
        """A new scene; the arm at its start, or left where it is."""

    def status(self) -> Mapping[str, float]:
        """What the task says of the episode so far."""

    @property
    def instruction(self) -> str:
        """What to do in this episode."""

    def expert(self) -> Callable[[], Array]:
        """Somebody who knows how to do the episode's task: joint targets (J,) [rad], from things as they are."""

    def snapshot(self) -> Any:
        """All that a picture of now depends on."""

    def painter(self) -> Painter:
        """Somebody who draws snapshots, in the thread that asks."""


class Puppet:
    """An arm without weight: its joints follow their motors at a limited speed, and stay where they are left.

    Args:
        spec: the joints.
        joints: where it starts, (J,) [rad]; None in the middle of the ranges.
        speed: of a motor [rad/s].
        step_s: length of a step [s].
    """

    def __init__(
        self, spec: RobotSpec, joints: Array | None = None, speed: float = 5.0, step_s: float = 1 / 240
    ) -> None:
        self.spec, self.step_s, self._speed = spec, step_s, speed
        self._joints = np.array((spec.low + spec.high) / 2 if joints is None else joints, dtype=np.float64)
        self._velocities, self._torques = np.zeros_like(self._joints), np.zeros_like(self._joints)

    @property
    def joints(self) -> Array:
        """Positions, (J,) [rad]."""
        return self._joints.copy()

    @property
    def velocities(self) -> Array:
        """(J,) [rad/s]."""
        return self._velocities.copy()

    @property
    def torques(self) -> Array:
        """(J,) [Nm]: what it takes to stand still is nothing."""
        return self._torques.copy()

    def advance(self, drives: Sequence[Drive]) -> None:
        """Every joint whose motor pulls moves towards its target."""
        most = self._speed * self.step_s
        goals = np.array([d.target if d.torque else q for d, q in zip(drives, self._joints, strict=True)])
        moved = np.clip(self._joints + np.clip(goals - self._joints, -most, most), self.spec.low, self.spec.high)
        self._velocities = (moved - self._joints) / self.step_s
        self._joints = moved

    def close(self) -> None:
        """Nothing to let go of."""
