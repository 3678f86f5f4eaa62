"""One arm of the twin: body, servos, bus, port and faults, and what LeRobot's calibration of it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.hardware.twin.body import Body
from vla_rl.hardware.twin.bus import Bus
from vla_rl.hardware.twin.faults import Fault, Faults
from vla_rl.hardware.twin.journal import Journal
from vla_rl.hardware.twin.line import Line
from vla_rl.hardware.twin.port import Port
from vla_rl.hardware.twin.servo import Servo, ServoConfig
from vla_rl.hardware.twin.table import TICK, TURN
from vla_rl.hardware.twin.world import World

FULL_TURN = "wrist_roll"  # LeRobot records no range of it, but takes the whole turn
MOUNTED_WITHIN = 600  # of the middle: how far off a horn may sit on its spline [ticks]
LEROBOT_GRIPPER = {"Max_Torque_Limit": 500, "Protection_Current": 250, "Overload_Torque": 25}

Calibration = dict[str, dict[str, int]]


@dataclass(frozen=True)
class ArmConfig:
    """How an arm is built.

    Attributes:
        servo: what all its servos are like.
        calibrated: its servos keep a calibration from before, `TwinArm.calibration`; else they are new.
        seed: of how the horns sit, and of what faults draw.
    """

    servo: ServoConfig = field(default_factory=ServoConfig)
    calibrated: bool = True
    seed: int = 0


class TwinArm:
    """An arm on a bus. Not safe for threads: the twin's lock is around it.

    Args:
        body: what its servos move; ids are 1, 2, ... in the order of its joints.
        link: name of its port.
        config: how it is built.
        now: time at which its world starts, monotonic clock [s].
    """

    def __init__(self, body: Body, link: Path, config: ArmConfig, now: float) -> None:
        rng = np.random.default_rng(config.seed)
        zeros = TURN // 2 + rng.integers(-MOUNTED_WITHIN, MOUNTED_WITHIN, len(body.spec.joints))
        servos = [Servo(i + 1, replace(config.servo, zero=int(z))) for i, z in enumerate(zeros)]
        self.body, self.journal = body, Journal()
        self._names = tuple(j.name for j in body.spec.joints)
        self.calibration = self._calibration(servos)
        if config.calibrated:
            self._keep(servos)
        self.world = World(body, servos, now)
        self.faults = Faults(servos, config.seed)
        self.line = Line(Port(link), Bus(servos, self.journal), self.faults)

    @property
    def servos(self) -> tuple[Servo, ...]:
        """In the order of the joints."""
        return self.world.servos

    def _calibration(self, servos: Iterable[Servo]) -> Calibration:
        """What LeRobot's `calibrate` finds when it is done by somebody careful: its zero is the model's zero."""
        found: Calibration = {}
        for joint, servo in zip(self.body.spec.joints, servos, strict=True):
            middle = (joint.low + joint.high) / 2
            offset = round(servo.config.zero + middle / TICK) - (TURN // 2 - 1)
            low, high = (round(servo.config.zero + q / TICK) - offset for q in (joint.low, joint.high))
            whole = joint.name == FULL_TURN
            found[joint.name] = {
                "id": servo.id,
                "drive_mode": 0,
                "homing_offset": offset,
                "range_min": 0 if whole else low,
                "range_max": TURN - 1 if whole else high,
            }
        return found

    def _keep(self, servos: Iterable[Servo]) -> None:
        """Servos that were calibrated and configured before."""
        for servo, joint, own in zip(servos, self.body.spec.joints, self.calibration.values(), strict=True):
            servo.memory["Homing_Offset"] = own["homing_offset"]
            servo.memory["Min_Position_Limit"], servo.memory["Max_Position_Limit"] = own["range_min"], own["range_max"]
            for name, value in LEROBOT_GRIPPER.items() if joint.gripper else ():
                servo.memory[name] = value
            servo.memory.save()
            servo.memory.restart()

    def work(self, now: float) -> None:
        """Everything that is due at a time [s]: faults, motion, bytes."""
        self.faults.tick(now)
        self.world.advance(now)
        if self.faults.gone:
            self.line.hang_up()
        else:
            self.line.port.plug_in()
            self.line.listen(now)
            self.line.speak(now)

    def begin(self, script: Iterable[Fault], now: float) -> None:
        """Faults from a time on [s]; an empty script mends everything."""
        self.faults.begin(script, now)

    def status(self) -> Mapping[str, Any]:
        """Joints [rad], servos and counters, JSON-ready."""
        servos = {}
        for name, joint, servo in zip(self._names, self.body.joints, self.servos, strict=True):
            servo.read(0, 1)
            servos[name] = {
                "id": servo.id,
                "joint": float(joint),
                "torque": servo.torque_on,
                "goal": servo.memory["Goal_Position"],
                "present": servo.present,
                "load": servo.memory["Present_Load"],
                "error": int(servo.error),
            }
        return {
            "port": str(self.line.port.link),
            "plugged_in": self.line.port.plugged_in,
            "faults": [f.kind for f in self.faults.active],
            "servos": servos,
            "counts": dict(self.journal.counts),
        }
