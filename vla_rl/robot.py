"""Robot: the one door to the world. MuJoCo and every real arm stand behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, runtime_checkable

import yaml

from vla_rl.types import Array, Image, Observation, RobotSpec


@dataclass(frozen=True, eq=False)
class Sensed:
    """Joints at one instant.

    Attributes:
        joints: positions, (J,) [rad].
        velocities: (J,) [rad/s].
        stamp_ns: when they were so, robot clock [ns].
    """

    joints: Array
    velocities: Array
    stamp_ns: int


class Robot(Protocol):
    """A body with joints, cameras and a clock of its own."""

    spec: RobotSpec

    def now_ns(self) -> int:
        """The robot's clock [ns]: simulated time in MuJoCo, the host's clock on an arm."""

    def sense(self) -> Sensed:
        """The joints, at once; cameras may take longer."""

    def pictures(self) -> Mapping[str, Image]:
        """What the cameras saw at the last `sense`, each (H, W, 3) uint8 RGB; one that fails is missing."""

    def observe(self) -> Observation | None:
        """The latest synchronised observation, or None while a sensor is stale."""

    def command(self, targets: Array) -> Array:
        """Send joint targets (J,) [rad]; return what was really sent, (J,) [rad].

        Raises:
            ValueError: wrong size or a value that is not finite; nothing was sent.
        """

    def hold(self) -> Array:
        """Stop and stay: arm joints where they are, gripper at its last command. Returns the targets, (J,) [rad]."""

    def close(self) -> None:
        """Let go of devices and windows; torque is never cut by this."""


@runtime_checkable
class Simulated(Protocol):
    """What a simulated Robot can do besides."""

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """A new scene; `options["variant"]` chooses what is named."""

    def status(self) -> Mapping[str, float]:
        """What the task says of the episode so far: success, reward, terminated, truncated, steps."""

    @property
    def instruction(self) -> str:
        """What to do in this episode."""


def arm_names() -> list[str]:
    """The arms that have a description in hardware/arms."""
    return sorted(p.name.removesuffix(".yaml") for p in (files("vla_rl") / "hardware/arms").iterdir())


def arm_spec(name: str) -> RobotSpec:
    """The RobotSpec of an arm by name; simulation and hardware read the same file.

    Raises:
        ValueError: no such arm; the message lists those that exist.
    """
    if name not in arm_names():
        raise ValueError(f"unknown arm '{name}'; there are: {', '.join(arm_names())}")
    path = files("vla_rl") / "hardware/arms" / f"{name}.yaml"
    return RobotSpec.from_dict(yaml.safe_load(path.read_text()))
