"""Calibration: what LeRobot wrote about one very arm, checked against the model, and turned into its RobotSpec.

LeRobot's zero of a joint is the middle of the sweep that its user recorded. A sweep goes from stop to stop, and so does
the model's range: their middles are the same place, which gives the joint's offset (`JointSpec.offset`). A sweep much
shorter or longer than the model's was not one, or is another arm's. A joint that turns without a stop is not
swept; its zero is the pose in which it was homed, nominally the model's. An offset in the arm's file comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vla_rl.types import JointSpec, RobotSpec

MAX_DIFFERENCE = math.radians(5.0)
NEARLY_A_TURN = math.radians(300.0)  # of the model's range
SUFFIX = ".pos"


@dataclass(frozen=True)
class Sweep:
    """One joint's calibration.

    Attributes:
        id: of its servo on the bus.
        homing: the servo's own homing offset [ticks].
        low, high: ends of the sweep [ticks].
        ticks: of a whole turn, less one: what LeRobot takes for 360 degrees.
    """

    id: int
    homing: int
    low: int
    high: int
    ticks: int = 4095

    @property
    def range(self) -> float:
        """How far it was swept [rad]."""
        return (self.high - self.low) * 2.0 * math.pi / self.ticks

    @property
    def whole_turn(self) -> bool:
        """What LeRobot writes of a joint that was not swept."""
        return self.low <= 0 and self.high >= self.ticks


def sweeps(calibration: Mapping[str, Any], ticks: Mapping[str, int]) -> dict[str, Sweep]:
    """LeRobot's `MotorCalibration`s by motor name, with the ticks of each motor's turn."""
    return {
        name: Sweep(c.id, c.homing_offset, c.range_min, c.range_max, ticks.get(name, 4096) - 1)
        for name, c in calibration.items()
    }


def motor_of(joint: JointSpec) -> str:
    """LeRobot's name of a joint's motor."""
    return joint.lerobot_name.removesuffix(SUFFIX)


def problems(spec: RobotSpec, found: Mapping[str, Sweep]) -> list[str]:
    """What is wrong with an arm's calibration, all of it; [] where it fits the model."""
    said = []
    for joint in spec.joints:
        sweep = found.get(motor_of(joint))
        if sweep is None:
            said.append(f"{joint.name} has no calibration")
        elif sweep.low >= sweep.high:
            said.append(f"{joint.name} was swept from {sweep.low} to {sweep.high}")
        elif not _endless(joint, sweep) and abs(sweep.range - (joint.high - joint.low)) > MAX_DIFFERENCE:
            model, swept = math.degrees(joint.high - joint.low), math.degrees(sweep.range)
            said.append(f"{joint.name} was swept by {swept:.1f} deg where the model has {model:.1f}")
    return said


def _endless(joint: JointSpec, sweep: Sweep) -> bool:
    """Whether the joint turns without a stop, so that nobody swept it; any other was to be."""
    return sweep.whole_turn and not joint.gripper and joint.high - joint.low > NEARLY_A_TURN


def differences(wanted: Mapping[str, Sweep], servos: Mapping[str, Sweep]) -> list[str]:
    """Where the servos' own memory says something else than the file: then the file is another arm's."""
    said = []
    for name, sweep in wanted.items():
        other = servos.get(name)
        for what in ("id", "homing", "low", "high"):
            if other is not None and getattr(sweep, what) != getattr(other, what):
                said.append(f"{name} {what} {getattr(sweep, what)} in the file, {getattr(other, what)} in the servo")
    return said


def calibrated(spec: RobotSpec, found: Mapping[str, Sweep]) -> RobotSpec:
    """The description of this very arm: offsets from its calibration, limits no wider than its sweep."""
    return replace(spec, joints=tuple(_calibrated(j, found[motor_of(j)]) for j in spec.joints))


def _calibrated(joint: JointSpec, sweep: Sweep) -> JointSpec:
    if _endless(joint, sweep) or joint.lerobot_unit == "percent":  # 0..100 is the sweep already
        return joint
    zero, half = joint.offset + (joint.low + joint.high) / 2.0, sweep.range / 2.0
    return replace(joint, offset=zero, low=max(joint.low, zero - half), high=min(joint.high, zero + half))
