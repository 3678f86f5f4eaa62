"""LeRobotTeleop: what a person holds, as any of LeRobot's teleoperators reads it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_rl.hardware.lerobot_driver import one_line, teleoperator_config
from vla_rl.hardware.ports import check_port, lacks_port
from vla_rl.hardware.servo_driver import ServoDriver
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


class _Leader(ServoDriver):
    """A leader arm's servos. Nothing is written to any before they were found to be the leader's.

    Behind a wrong port may be an arm that its torque holds up.
    """

    @property
    def calibrate_hint(self) -> str:
        """How to calibrate it with LeRobot's own command."""
        return (
            f"run: lerobot-calibrate --teleop.type={self._kind} --teleop.port={self._bus.port} "
            f"--teleop.id={self.robot.id}"
        )

    def open(self, spec: RobotSpec) -> RobotSpec:
        """Open the port, check units, servos and calibration, then configure; returns the description of this leader.

        Where a gripper is a trigger, its sweep is its own: 0..100 says how far it is closed all the same.
        """
        swept = tuple(joint for joint in spec.joints if joint.lerobot_unit != "percent")
        try:
            self.check_units(spec)
            self.open_port()
            self.count()
            fitted = {joint.name: joint for joint in self.check_calibration(replace(spec, joints=swept)).joints}
            self._asked(self.robot.configure)
        except Exception as error:
            self.close()
            raise ValueError(str(error) if isinstance(error, ValueError) else one_line(error)) from error
        return replace(spec, joints=tuple(fitted.get(joint.name, joint) for joint in spec.joints))

    def said(self) -> Mapping[str, float]:
        """What it says, asked on a clean line; errors as `Driver.read`."""
        return self._asked(self.robot.get_action, 0)

    def close(self) -> None:
        """Close the port, also of one that was unplugged."""
        with suppress(Exception):
            super().close()


class LeRobotTeleop:
    """One of LeRobot's teleoperators, connected: leader arms say joints, gamepads and the like say where to go.

    Args:
        spec: of the arm that it moves.
        kind: LeRobot's name of it.
        settings: fields of its configuration class.

    Raises:
        ValueError: no such teleoperator, it does not connect, is not calibrated, says what no arm of ours does, or
            tells its joints in another unit than the arm's file.
    """

    def __init__(self, spec: RobotSpec, kind: str, settings: Mapping[str, Any]) -> None:
        from lerobot.teleoperators import make_teleoperator_from_config

        self._spec, self.kind = spec, kind
        if lacks_port("teleoperator", kind, settings):
            check_port("")
        config = teleoperator_config(kind, settings)
        try:
            self._device = make_teleoperator_from_config(config)
        except ImportError as error:
            raise ValueError(f"teleoperator {kind}: {one_line(error)}") from error
        except Exception as error:  # all that LeRobot reads by then is its calibration
            raise ValueError(
                f"teleoperator {kind}: {one_line(error)}; is its calibration, {config.id}.json, damaged? "
                "Then remove it, and run lerobot-calibrate"
            ) from error
        self._leader: _Leader | None = None
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

        if isinstance(getattr(self._device, "bus", None), SerialMotorsBus):
            try:
                self._leader = _Leader(self._device, self.kind)
                self._spec = self._leader.open(self._spec)
            except ValueError as error:
                raise ValueError(f"teleoperator {self.kind}: {error}") from error
        else:
            self._connect_any()

    def _connect_any(self) -> None:
        try:
            asks = "calibrate" in inspect.signature(self._device.connect).parameters
            self._device.connect(**({"calibrate": False} if asks else {}))
            calibrated = self._device.is_calibrated
        except Exception as error:
            raise ValueError(f"teleoperator {self.kind} does not connect: {one_line(error)}") from error
        if not calibrated:
            self.close()
            raise ValueError(
                f"teleoperator {self.kind} is not calibrated, or by another's file: run: lerobot-calibrate "
                f"--teleop.type={self.kind} --teleop.id={self._device.id}"
            )

    def read(self) -> Said:
        """What it says now.

        Raises:
            ConnectionError: nothing; ask again.
        """
        try:
            action = self._device.get_action() if self._leader is None else self._leader.said()
        except Exception as error:
            raise ConnectionError(f"teleoperator {self.kind}: {one_line(error)}") from error
        if self.leads:
            values = np.array([float(action[name]) for name in self._names])
            return Said(np.clip(self._spec.from_lerobot(values), self._spec.low, self._spec.high), None, time.time_ns())
        linear = np.array([float(action[name]) for name in DELTAS]) * DELTA_SPEED
        return Said(None, np.concatenate([linear, np.zeros(3)]), time.time_ns())

    def close(self) -> None:
        """Let go of it; one that was unplugged hears nothing of that."""
        with suppress(Exception):
            if self._device.is_connected:
                self._device.disconnect()
        if self._leader is not None:
            self._leader.close()
