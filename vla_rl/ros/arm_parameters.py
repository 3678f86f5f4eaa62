"""Parameters of a real arm: what robot_node and its command line know of it, as plain text."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians
from typing import Any

from vla_rl import build, build_arm
from vla_rl.ros.arm_settings import mapping
from vla_rl.ros.parameters import parameter


@dataclass(frozen=True)
class ArmParameters:
    """What `build_arm.ArmConfig` wants, as ROS parameters."""

    robot: str = parameter("mujoco", "which robot", choices=build.ROBOTS, fixed=True)
    arm: str = parameter("so101", "a real arm's description: a name in hardware/arms, or a .yaml file", fixed=True)
    driver: str = parameter("", "LeRobot's name of the robot; empty: the description's", fixed=True)
    port: str = parameter("", "serial port of the arm", fixed=True)
    id: str = parameter("", "LeRobot's name of this very arm; empty: the description's name", fixed=True)
    calibration: str = parameter("", "folder of its calibration; empty: LeRobot's own", fixed=True)
    settings: str = parameter("", "further fields of LeRobot's configuration, YAML or its file", fixed=True)
    camera_devices: str = parameter("", "LeRobot's settings of each camera by name, YAML or its file", fixed=True)
    at_exit: str = parameter("hold", "what becomes of a real arm at the end", choices=build_arm.EXITS, fixed=True)
    rest: str = parameter("", "where lower goes, {joint: degrees}; empty: where the arm was found", fixed=True)
    silence_s: float = parameter(0.0, "without an answer for so long hold [s]; 0: three periods", 0.0, 10.0, fixed=True)

    def arm_config(self) -> build_arm.ArmConfig:
        """The same as data.

        Raises:
            ValueError: a text that is no mapping, or a resting pose that is no angles.
        """
        rest = {name: _radians(name, angle) for name, angle in mapping("rest", self.rest).items()}
        return build_arm.ArmConfig(
            self.robot, self.arm, self.driver, self.port, self.id, self.calibration,
            mapping("settings", self.settings), mapping("camera_devices", self.camera_devices),
            self.at_exit, rest, self.silence_s,
        )  # fmt: skip


def _radians(joint: str, angle: Any) -> float:
    try:
        return radians(float(angle))
    except (TypeError, ValueError):
        raise ValueError(f"rest: {joint} is {angle!r}, not degrees; {{shoulder_lift: -100}} for one") from None
