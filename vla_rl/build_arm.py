"""Names to real arms, LeRobot's and ros2_control's, and to a twin of one: for robot_node, the doctor, benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from math import degrees
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_rl.hardware.checkup import Note
    from vla_rl.hardware.lerobot_arm import LeRobotConfig
    from vla_rl.hardware.lerobot_teleop import LeRobotTeleop
    from vla_rl.hardware.twin.twin import Twin, TwinConfig
    from vla_rl.robot import Robot
    from vla_rl.rollout.sysid_model import Motion, Simulate
    from vla_rl.types import RobotSpec

ARMS = ("lerobot", "ros2_control")
EXITS = ("hold", "lower", "release")
_ASKED_AS = {"cameras": "camera_devices"}  # what the command line and robot_node call it


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
    from vla_rl.hardware.ports import check_port, lacks_port

    lerobot = lerobot_config(config)
    if lacks_port("robot", lerobot.driver, lerobot.settings):
        check_port("")
    return LeRobotArm(arm_spec(config.arm), lerobot, say)


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
    from vla_rl.hardware.checkup import self_test

    arm = _borrowed(config, say)
    try:
        yield from self_test(arm, say)
    finally:
        arm.close()


def excite(config: ArmConfig, simulate: Simulate, seconds: float, say: Callable[[str], None]) -> Motion:
    """Drive an arm so that its delay and gains show, and leave it as it was found; see `rollout.excitation`.

    Raises:
        ValueError: the arm cannot be used as it is, or a fault ended it.
    """
    from vla_rl.rollout.excitation import excite

    arm = _borrowed(config, say)
    try:
        return excite(arm, simulate, seconds)[0]
    finally:
        arm.close()


def _borrowed(config: ArmConfig, say: Callable[[str], None]) -> Robot:
    """An arm without cameras, on the port that it is found on, lowered in the end to where it was."""
    from vla_rl.hardware.checkup import with_port
    from vla_rl.robot import arm_spec

    settings = with_port(arm_spec(config.arm), lerobot_config(config)).settings
    return make_arm(replace(config, settings=settings, at_exit="lower", cameras={}), say=say)


def make_teleop(spec: RobotSpec, kind: str, settings: Mapping[str, Any]) -> LeRobotTeleop:
    """One of LeRobot's teleoperators, connected; see `LeRobotTeleop`."""
    from vla_rl.hardware.lerobot_teleop import LeRobotTeleop

    return LeRobotTeleop(spec, kind, settings)


def lerobot_config(config: ArmConfig) -> LeRobotConfig:
    """The same for LeRobot's driver, filled from the arm's file.

    Raises:
        ValueError: `rest` names no joint of the arm, or is no place within its limits.
    """
    from vla_rl.hardware.lerobot_arm import LeRobotConfig
    from vla_rl.robot import arm_section, arm_spec

    spec, section = arm_spec(config.arm), arm_section(config.arm, "lerobot")
    _check_rest(config.rest, spec)
    own = {"port": config.port, "id": config.id, "calibration_dir": config.calibration}
    given = {name: value for name, value in own.items() if value}
    settings = {"id": spec.name, **section.get("settings", {}), **given, **config.settings}
    driver = config.driver or section.get("driver", f"{spec.name}_follower")
    cameras = config.cameras or section.get("cameras", {})
    return LeRobotConfig(driver, settings, cameras, config.at_exit, config.rest, config.silence_s)


def _check_rest(rest: Mapping[str, float], spec: RobotSpec) -> None:
    """Refuse a resting pose that would not be gone to: the torque would be cut somewhere else."""
    from vla_rl.hardware.liveness import SHUT_OUT_RAD

    limits = {joint.name: (joint.low, joint.high) for joint in spec.joints}
    for name, angle in rest.items():
        if name not in limits:
            raise ValueError(f"rest: '{spec.name}' has no joint '{name}'; there are: {', '.join(limits)}")
        low, high = limits[name]
        if not low - SHUT_OUT_RAD <= angle <= high + SHUT_OUT_RAD:  # true of NaN
            raise ValueError(f"rest: {name} at {degrees(angle):.1f} degrees is outside its limits, "
                             f"{degrees(low):.1f} to {degrees(high):.1f}")  # fmt: skip


def _make_ros2_control_arm(config: ArmConfig, node: Any) -> Robot:
    from vla_rl.hardware.ros2_control_arm import Ros2ControlArm
    from vla_rl.hardware.ros2_control_config import Ros2ControlConfig
    from vla_rl.robot import arm_section, arm_spec
    from vla_rl.ros import messages

    plain = ArmConfig(config.robot, config.arm)
    idle = [_ASKED_AS.get(f.name, f.name) for f in fields(config) if getattr(config, f.name) != getattr(plain, f.name)]
    if idle:
        raise ValueError(f"robot ros2_control does nothing with {', '.join(idle)}, leave it out: its controllers hold "
                         "the arm at the end, and its topics are in the arm's file")  # fmt: skip
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
