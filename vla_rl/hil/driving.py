"""What an operator presses in the browser, as a Command: keys, a gamepad's axes, the buttons on a touch screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vla_rl.execute.chain import rotation
from vla_rl.hil.device import Command
from vla_rl.types import Array, RobotSpec

# KeyboardEvent.code to (axis, sign); the axes are those of `_AXES`. The code is where a key is, whatever the layout.
KEYS = {
    "KeyW": ("away", 1.0), "KeyS": ("away", -1.0), "KeyA": ("right", -1.0), "KeyD": ("right", 1.0),
    "KeyR": ("up", 1.0), "KeyF": ("up", -1.0), "KeyQ": ("turn", 1.0), "KeyE": ("turn", -1.0),
    "KeyT": ("tilt", 1.0), "KeyG": ("tilt", -1.0), "KeyX": ("open", 1.0), "KeyC": ("open", -1.0),
    "ArrowUp": ("away", 1.0), "ArrowDown": ("away", -1.0), "ArrowLeft": ("right", -1.0), "ArrowRight": ("right", 1.0),
    "PageUp": ("up", 1.0), "PageDown": ("up", -1.0),
}  # fmt: skip
SLOW = frozenset({"ShiftLeft", "ShiftRight"})
_AXES = ("away", "right", "up", "turn", "tilt", "open")


@dataclass(frozen=True)
class DrivingConfig:
    """How fast a key or a full stick drives.

    Attributes:
        linear: of the gripper [m/s].
        angular: of the gripper [rad/s].
        slow: with shift, so much of it.
        dead: an axis that is pushed less than this is at rest.
    """

    linear: float = 0.12
    angular: float = 1.2
    slow: float = 0.3
    dead: float = 0.12


class Driving:
    """Turns what is pressed into a twist of the gripper, as the operator sees it in a picture.

    Args:
        spec: the robot; directions are those of the first camera whose place it knows, else of its base (x ahead).
        config: speeds.
    """

    def __init__(self, spec: RobotSpec | None = None, config: DrivingConfig | None = None) -> None:
        self.config = config or DrivingConfig()
        self._turn = _seen_from(spec)

    def __call__(self, keys: Iterable[str], axes: Sequence[float] = ()) -> Command:
        """A command.

        Args:
            keys: codes of those that are down; others than `KEYS` and `SLOW` mean nothing.
            axes: shares of away, right, up, turn (leftwards), tilt (fingers outwards) and open, each -1 to 1; one
                that is missing is at rest.
        """
        down = frozenset(keys)
        shares = dict(zip(_AXES, map(self._at_rest, axes), strict=False))
        for axis, sign in {KEYS[key] for key in down if key in KEYS}:  # two keys of one meaning are one
            shares[axis] = shares.get(axis, 0.0) + sign
        away, right, up, turn, tilt, opens = (float(np.clip(shares.get(axis, 0.0), -1, 1)) for axis in _AXES)
        pace = self.config.slow if down & SLOW else 1.0
        linear = self._turn @ [away, -right, up] * self.config.linear
        angular = self._turn @ [0.0, -tilt, turn] * self.config.angular
        return Command(twist=np.concatenate([linear, angular]) * pace, gripper=opens * pace)

    def _at_rest(self, share: float) -> float:
        """A stick that nobody touches is never quite at its centre."""
        return share if math.isfinite(share) and abs(share) > self.config.dead else 0.0


def _seen_from(spec: RobotSpec | None) -> Array:
    """Rotation (3, 3) about the vertical: x points away from whoever looks through the camera."""
    frame = next((camera.frame for camera in spec.cameras if camera.frame is not None), None) if spec else None
    if frame is None:
        return np.eye(3)
    right = rotation(frame.quaternion)[:, 0]
    angle = math.atan2(right[1], right[0]) + math.pi / 2
    sine, cosine = math.sin(angle), math.cos(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
