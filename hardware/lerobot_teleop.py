"""LeRobotTeleop: what a person holds, as any of LeRobot's teleoperators reads it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_rl.hardware.lerobot_driver import one_line, teleoperator_config
from vla_rl.hardware.ports import tune
from vla_rl.types import Array, RobotSpec

DELTAS = ("delta_x", "delta_y", "delta_z")
DELTA_SPEED = 0.1  # of the gripper at a full deflection [m/s]


@dataclass(frozen=True, eq=False)
class Said:
    """What the device says at one instant: either of both, and when.

    Attributes:
        joints: of a leader arm, (J,) [rad], in the arm's order.
        twist: of a device that says how far to go, (6,), linear [m/s] and angular [rad/s], in the base frame.
        stamp_ns: system clock [ns].
    """

    joints: Array | None
    twist: Array | None
    stamp_ns: int


class LeRobotTeleop:
    """One of LeRobot's teleoperators, connected: leader arms say joints, gamepads and the like say where to go.

    Args:
        spec: of the arm that it moves.
        kind: LeRobot's name of it.
        settings: fields of its configuration class.

    Raises:
        ValueError: no such teleoperator, it does not connect, is not calibrated, or says what no arm of ours does.
    """

    def __init__(self, spec: RobotSpec, kind: str, settings: Mapping[str, Any]) -> None:
        from lerobot.teleoperators import make_teleoperator_from_config

        self._spec, self.kind = spec, kind
        try:
            self._device = make_teleoperator_from_config(teleoperator_config(kind, settings))
        except ImportError as error:
            raise ValueError(f"teleoperator {kind}: {one_line(error)}") from error
        self._names = [joint.lerobot_name for joint in spec.joints]
        self.leads = self._check_features()
        self._connect()

    def _check_features(self) -> bool:
        """Whether it says joints.

        Raises:
            ValueError: it says neither joints of this arm nor deltas.
        """
        features = self._device.action_features
        names = set(features.get("names", features))  # LeRobot's gamepads describe an array
        if set(self._names) <= names:
            return True
        if set(DELTAS) <= names:
            return False
        raise ValueError(
            f"teleoperator {self.kind} says {', '.join(sorted(names))}; "
            f"the arm '{self._spec.name}' needs {', '.join(self._names)}, or {', '.join(DELTAS)}"
        )

    def _connect(self) -> None:
        from lerobot.motors.motors_bus import SerialMotorsBus

        try:
            asks = "calibrate" in inspect.signature(self._device.connect).parameters
            self._device.connect(**({"calibrate": False} if asks else {}))
            if isinstance(getattr(self._device, "bus", None), SerialMotorsBus):
                tune(self._device.bus.port_handler)
            calibrated = self._device.is_calibrated
        except Exception as error:
            raise ValueError(f"teleoperator {self.kind} does not connect: {one_line(error)}") from error
        if not calibrated:
            port = getattr(self._device.config, "port", "")
            self.close()
            raise ValueError(
                f"teleoperator {self.kind} is not calibrated, or by another's file: run: lerobot-calibrate "
                f"--teleop.type={self.kind} --teleop.port={port} --teleop.id={self._device.id}"
            )

    def read(self) -> Said:
        """What it says now.

        Raises:
            ConnectionError: nothing; ask again.
        """
        try:
            action = self._device.get_action()
        except Exception as error:
            raise ConnectionError(f"teleoperator {self.kind}: {one_line(error)}") from error
        if self.leads:
            values = np.array([float(action[name]) for name in self._names])
            return Said(np.clip(self._spec.from_lerobot(values), self._spec.low, self._spec.high), None, time.time_ns())
        linear = np.array([float(action[name]) for name in DELTAS]) * DELTA_SPEED
        return Said(None, np.concatenate([linear, np.zeros(3)]), time.time_ns())

    def close(self) -> None:
        """Let go of it."""
        if self._device.is_connected:
            self._device.disconnect()
