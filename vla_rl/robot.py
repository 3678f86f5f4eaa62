"""Robot: the one door to the world. MuJoCo and every real arm stand behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vla_rl import arm_file
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
        """Let go of devices and windows; torque is cut by this only where the arm was told to do so at its exit."""


class Fault(ValueError):  # noqa: N818  the word of the field, for a state of a robot that an exception carries
    """A robot takes no commands: one line that names the part and the cause."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, (H, W, 3) uint8 RGB, and when it was captured, robot clock [ns]."""

    image: Image
    stamp_ns: int


@runtime_checkable
class Physical(Protocol):
    """What a real arm can do besides.

    A fault latches: from then on `command` raises `Fault` and nothing more is sent, until somebody calls `recover`.
    """

    @property
    def fault(self) -> str:
        """What is wrong with it, in one line; "" while nothing is."""

    def recover(self) -> None:
        """Look again, and take commands if all is well.

        Raises:
            Fault: it is not.
        """

    def frames(self) -> Mapping[str, Frame]:
        """The newest picture of each camera; one that fell silent is missing."""

    def figures(self) -> Mapping[str, float]:
        """Counters and measures by name, for the diagnostics."""


@runtime_checkable
class Rejoined(Protocol):
    """A real arm that may be found as somebody left it, with something in its gripper."""

    @property
    def told(self) -> Array:
        """What it was told last, also by whoever drove it before, (J,) [rad]."""


@runtime_checkable
class Simulated(Protocol):
    """What a simulated Robot can do besides."""

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """A new scene; `options["variant"]` chooses what is named."""

    def status(self) -> Mapping[str, float]:
        """What the task says of the episode so far: success, reward, terminated, truncated, steps, progress."""

    @property
    def instruction(self) -> str:
        """What to do in this episode."""


@runtime_checkable
class SupportsExpert(Protocol):
    """A simulated Robot in whose task somebody is at home."""

    def expert(self, clumsy: bool = False, seed: int = 0, pace: float = 1.0) -> Callable[[], Array]:
        """The task's scripted expert: asked once a period, joint targets (J,) [rad] from things as they are then.

        Args:
            clumsy: of mixed quality.
            seed: of its choices.
            pace: multiple of its usual speed.
        """


def arm_names() -> list[str]:
    """The arms that have a description in hardware/arms."""
    return sorted(p.name.removesuffix(".yaml") for p in (files("vla_rl") / "hardware/arms").iterdir())


def arm_spec(name: str) -> RobotSpec:
    """The RobotSpec of an arm by name, or of a person's own file; simulation and hardware read the same file.

    Args:
        name: of an arm in hardware/arms, or the path of a .yaml file.

    Raises:
        ValueError: no such arm, the message lists those that exist; or its file is wrong, in all these ways.
    """
    return arm_file.load(_arm_path(name))


def arm_section(name: str, driver: str) -> dict[str, Any]:
    """What an arm's file says to a driver of its own, {} where nothing.

    Args:
        name: as in `arm_spec`.
        driver: one of `arm_file.DRIVERS`.

    Raises:
        ValueError: as `arm_spec`.
    """
    return dict(arm_file.read(_arm_path(name)).get(driver) or {})


def _arm_path(name: str) -> Path | Traversable:
    if name.endswith(".yaml"):
        return Path(name)
    if name not in arm_names():
        raise ValueError(f"unknown arm '{name}'; there are: {', '.join(arm_names())}, or give a .yaml file")
    return files("vla_rl") / "hardware/arms" / f"{name}.yaml"
