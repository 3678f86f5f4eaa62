"""Device: whatever a person moves an arm with; and Command: what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vla_rl.types import Array

BUTTONS = (
    "take_over", "hand_back", "toggle", "pause", "resume", "stop", "reset_stop", "start", "success", "failure", "end",
    "discard", "rerecord",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Command:
    """What a person wants at one instant; of targets, velocities and twist one at most, none means: stay.

    Attributes:
        targets: joints (J,) [rad], in the robot's order: a leader arm's.
        velocities: of joints, (J,) [rad/s].
        twist: of the gripper in the base frame, (6,): linear [m/s], then angular [rad/s].
        gripper: opens (up to 1) or closes (down to -1), as a share of its full speed.
        buttons: of `BUTTONS`, what was pressed since the command before, in order: one that was pressed twice is there
            twice.
    """

    targets: Array | None = None
    velocities: Array | None = None
    twist: Array | None = None
    gripper: float = 0.0
    buttons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for two kinds of motion at once, or a button that does not exist."""
        if sum(kind is not None for kind in (self.targets, self.velocities, self.twist)) > 1:
            raise ValueError("a command is joint targets, joint velocities or a twist: one of them at most")
        if unknown := sorted(set(self.buttons).difference(BUTTONS)):
            raise ValueError(f"unknown button '{unknown[0]}'; there are: {', '.join(BUTTONS)}")


class Device(Protocol):
    """Something that a person holds."""

    name: str

    def read(self, now_ns: int) -> Command | None:
        """What it says at a monotonic time [ns]; None where it is lost or has not been heard for too long."""

    def close(self) -> None:
        """Let go of it."""
