"""A 3Dconnexion SpaceMouse, read from /dev/hidraw*: no driver, no library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl.hil.device import Command
from vla_rl.hil.devices.file import DeviceFile
from vla_rl.hil.driving import Driving

_FULL = 350.0  # what a cap pushed to its end says
_MOTION, _TWIST, _BUTTONS = 1, 2, 3  # numbers of reports
_CLOSE, _OPEN, _BOTH = 1, 2, 3


@dataclass(frozen=True)
class SpaceMouseConfig:
    """Signs of away, right, up, turn and tilt, for the cap's axes y, x, z, its twist and its nod."""

    signs: tuple[float, ...] = (-1.0, 1.0, -1.0, -1.0, 1.0)


class SpaceMouse:
    """The cap drives, its left button closes the gripper, its right one opens it, both together take over.

    It tells of changes only: silence is no loss, an unplugged cable is.

    Args:
        driving: axes to twists.
        path: /dev/hidraw of the device.
        config: signs.

    Raises:
        OSError: there is no such device, or it may not be read.
    """

    name = "SpaceMouse"

    def __init__(self, driving: Driving, path: str, config: SpaceMouseConfig | None = None) -> None:
        self._driving, self._file, self._config = driving, DeviceFile(path), config or SpaceMouseConfig()
        self._cap, self._buttons = np.zeros(6), 0

    def read(self, now_ns: int) -> Command | None:
        """Where the cap is; None where the device is gone."""
        said = self._file.read(now_ns)
        if said is None:
            self._cap, self._buttons = np.zeros(6), 0
            return None
        toggles = [self._take(report) for report in said]
        both = self._buttons == _BOTH
        x, y, z, nod, _, twist = self._cap
        shares = [sign * value for sign, value in zip(self._config.signs, (y, x, z, twist, nod), strict=True)]
        opens = 0.0 if both else float(self._buttons == _OPEN) - float(self._buttons == _CLOSE)
        command = self._driving((), [*shares, opens])
        return Command(twist=command.twist, gripper=command.gripper, buttons=("toggle",) * sum(toggles))

    def _take(self, report: bytes) -> bool:
        """A report: x, y and z, on newer models with the rotations behind them; rotations; buttons.

        Returns whether it has both buttons down, and they were not before.
        """
        kind, values, before = report[0], report[1:], self._buttons
        if kind == _BUTTONS and values:
            self._buttons = values[0] & _BOTH
        elif kind in (_MOTION, _TWIST):
            numbers = np.frombuffer(values[: len(values) // 2 * 2], "<i2")[:6] / _FULL
            first = 0 if kind == _MOTION else 3
            self._cap[first : first + len(numbers)] = np.clip(numbers, -1.0, 1.0)[: 6 - first]
        return self._buttons == _BOTH != before

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
