"""Names to real arms, LeRobot's and ros2_control's, and to a twin of one: for robot_node, the doctor, benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_rl.hardware.checkup import Note
    from vla_rl.hardware.lerobot_arm import LeRobotConfig
    from vla_rl.hardware.lerobot_teleop import LeRobotTeleop
    from vla_rl.hardware.twin.twin import Twin, TwinConfig
    from vla_rl.robot import Robot
    from vla_rl.rollout.sysid_model import Simulate
    from vla_rl.types import RobotSpec

ARMS = ("lerobot", "ros2_control")
EXITS = ("hold", "lower", "release")


@dataclass(frozen=True)
class ArmConfig:
    """Which real arm, and how to treat it.

    Attributes:
        robot: lerobot or ros2_control: who drives it.
        arm: its description: a name in hardware/arms, or a .yaml file.
        driver: LeRobot's name of the robot; empty takes the description's, else `<arm>_follower`.
        port, id, calibration: LeRobot's: serial port, name of this very arm, folder of its calibration; empty for
            LeRobot's own choice, the id for the description's name.
        settings: further fields of LeRobot's configuration class.
        cameras: LeRobot's camera settings by name.
        at_exit: what becomes of the arm at the end: hold, lower or release.
        rest: where `lower` goes, joint to angle [rad]; empty: where the arm was found.
        silence_s: without an answer for so long the arm is held [s]; 0 takes three periods.
    """

    robot: str = "lerobot"
    arm: str = "so101"
    driver: str = ""
    port: str = ""
    id: str = ""
    calibration: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    at_exit: str = "hold"
    rest: Mapping[str, float] = field(default_factory=dict)
    silence_s: float = 0.0


def make_arm(config: ArmConfig, node: Any = None, say: Callable[[str], None] = print) -> Robot:
    """A real arm, connected and holding where it was found.

    Args:
        config: which one.
        node: whose topics an arm under ros2_control uses.
        say: takes a line for whoever watches.

    Raises:
        ValueError: it cannot be used as it is; one line that says what to do.
    """
    from vla_rl.robot import arm_spec

    if config.robot not in ARMS:
        raise ValueError(f"unknown arm '{config.robot}'; there are: {', '.join(ARMS)}")
    if config.robot == "ros2_control":
        return _make_ros2_control_arm(config, node)
    from vla_rl.hardware.lerobot_arm import LeRobotArm

    return LeRobotArm(arm_spec(config.arm), lerobot_config(config), say)


def checkup(config: ArmConfig) -> Iterator[Note]:
    """Notes on a LeRobot arm's parts, without moving it.

    Raises:
        ValueError: no such arm.
    """
    from vla_rl.hardware.checkup import checkup
    from vla_rl.robot import arm_spec

    return checkup(arm_spec(config.arm), lerobot_config(config))


def self_test(config: ArmConfig, say: Callable[[str], None]) -> Iterator[Note]:
    """Move each joint a little, and leave the arm as it was found.

    Raises:
        ValueError: the arm cannot be used as it is.
    """
    from vla_rl.hardware.checkup import find_port, self_test
    from vla_rl.robot import arm_spec

    port = config.port or find_port(arm_spec(config.arm), lerobot_config(config))
    arm = make_arm(replace(config, port=port, at_exit="lower", cameras={}), say=say)
    try:
        yield from self_test(arm, say)
    finally:
        arm.close()


def make_teleop(spec: RobotSpec, kind: str, settings: Mapping[str, Any]) -> LeRobotTeleop:
    """One of LeRobot's teleoperators, connected; see `LeRobotTeleop`."""
    from vla_rl.hardware.lerobot_teleop import LeRobotTeleop

    return LeRobotTeleop(spec, kind, settings)


def lerobot_config(config: ArmConfig) -> LeRobotConfig:
    """The same for LeRobot's driver, filled from the arm's file."""
    from vla_rl.hardware.lerobot_arm import LeRobotConfig
    from vla_rl.robot import arm_section, arm_spec

    name, section = arm_spec(config.arm).name, arm_section(config.arm, "lerobot")
    own = {"port": config.port, "id": config.id or name, "calibration_dir": config.calibration}
    settings = {**section.get("settings", {}), **own, **config.settings}
    driver = config.driver or section.get("driver", f"{name}_follower")
    cameras = config.cameras or section.get("cameras", {})
    return LeRobotConfig(driver, settings, cameras, config.at_exit, config.rest, config.silence_s)


def _make_ros2_control_arm(config: ArmConfig, node: Any) -> Robot:
    from vla_rl.hardware.ros2_control_arm import Ros2ControlArm
    from vla_rl.hardware.ros2_control_config import Ros2ControlConfig
    from vla_rl.robot import arm_section, arm_spec
    from vla_rl.ros import messages

    spec = arm_spec(config.arm)
    topics = Ros2ControlConfig.from_dict(arm_section(config.arm, "ros2_control"), spec, config.arm)
    return Ros2ControlArm(spec, topics, messages.image_of, messages.compressed_of, node)


def twin_config(**options: Any) -> TwinConfig:
    """The configuration of a twin of plain values: paths as text, `faults` a script's file.

    Raises:
        ValueError: the script is none.
    """
    from vla_rl.hardware.twin.faults import read_script
    from vla_rl.hardware.twin.twin import TwinConfig

    given = {k: v for k, v in options.items() if v not in (None, "")}
    given |= {k: Path(given[k]) for k in ("port", "leader", "control") if k in given}
    if "faults" in given:
        given["faults"] = tuple(read_script(Path(given["faults"])))
    return TwinConfig(**given)


def make_twin(config: TwinConfig) -> Twin:
    """An SO-101 on a servo bus that is none: MuJoCo's with a scene where there is a task, else one without weight.

    Raises:
        ValueError: no such task, level or camera.
    """
    from vla_rl import build
    from vla_rl.hardware.twin.body import Body, Puppet
    from vla_rl.hardware.twin.twin import Twin
    from vla_rl.robot import arm_spec

    body: Body = Puppet(arm_spec("so101"))
    if config.task:
        build.tasks(config.task)
        os.environ.setdefault("MUJOCO_GL", "egl")
        from vla_rl.sim.env import TabletopEnv
        from vla_rl.sim.twin_body import TabletopBody

        looks, words, size = config.randomisation, config.phrasings, config.image_size
        env = TabletopEnv(config.task, looks, size, build.CAMERAS, phrasings=words)
        body = TabletopBody(env, config.seed, config.camera_offsets)
    return Twin(config, body, Puppet(body.spec, body.joints) if config.leader else None)


def make_servo_replay(arm: str) -> Simulate:
    """The simulated arm alone, for its commands to be replayed with other gains.

    Raises:
        ValueError: no arm is named, or there is no dynamic model of it.
    """
    from vla_rl.sim.servo_replay import ServoReplay

    if not arm:
        raise ValueError(f"which arm? The recording does not say; --arm, one of: {', '.join(ServoReplay.ARMS)}")
    return ServoReplay(arm)
