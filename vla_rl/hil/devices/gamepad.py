"""A gamepad, as `sensor_msgs/Joy` tells of it: numbered axes and buttons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla_rl.hil.device import Command
from vla_rl.hil.devices.fed import Fed
from vla_rl.hil.driving import Driving


@dataclass(frozen=True)
class GamepadConfig:
    """Which axis and button is which; the defaults are joy_node's for an Xbox controller on Linux.

    Attributes:
        axes: for away, right, up, turn and tilt: number of the axis, and its sign.
        opens, closes: numbers of the buttons that open and close the gripper while they are held.
        buttons: number of a button to what it means.
        timeout_s: without a word for so long it is lost [s]; joy_node repeats itself at 20 Hz.
    """

    axes: tuple[tuple[int, float], ...] = ((1, 1.0), (0, -1.0), (4, 1.0), (3, 1.0), (7, 1.0))
    opens: int = 5
    closes: int = 4
    buttons: tuple[tuple[int, str], ...] = (
        (0, "toggle"), (1, "stop"), (2, "success"), (3, "failure"), (6, "discard"), (7, "start"),
    )  # fmt: skip
    timeout_s: float = 0.2


class Gamepad(Fed):
    """Axes and buttons as commands; a button counts when it goes down.

    Args:
        driving: axes to twists.
        config: which is which.
    """

    def __init__(self, driving: Driving, config: GamepadConfig | None = None) -> None:
        self.config = config or GamepadConfig()
        super().__init__("gamepad", self.config.timeout_s)
        self._driving, self._held = driving, frozenset[int]()

    def heard(self, axes: Sequence[float], buttons: Sequence[int], now_ns: int) -> None:
        """Take what it says at a monotonic time [ns]; axes and buttons that it does not have are at rest."""
        held = frozenset(number for number, down in enumerate(buttons) if down)
        pressed, self._held = held - self._held, held
        shares = [sign * axes[number] if number < len(axes) else 0.0 for number, sign in self.config.axes]
        opens = float(self.config.opens in held) - float(self.config.closes in held)
        command = self._driving((), [*shares, opens])
        means = tuple(name for number, name in self.config.buttons if number in pressed)
        self.put(Command(twist=command.twist, gripper=command.gripper, buttons=means), now_ns)
