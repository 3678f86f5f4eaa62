"""What an arm's file says of ros2_control: who publishes its joints, and which controllers take its commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vla_rl.arm_file import Checked
from vla_rl.types import RobotSpec

TRAJECTORY, FORWARD = "trajectory", "forward"
MAX_REACH = 2.0  # periods: what is sent may move the arm no longer than this after a takeover, a stop or a kill


@dataclass(frozen=True)
class Controller:
    """One controller and the joints that it has, in its own order.

    Attributes:
        name: `/joint_trajectory_controller`, for one.
        kind: "trajectory" (joint_trajectory_controller) or "forward" (a forward position controller).
        joints: names, in the order of its parameter `joints`.
    """

    name: str
    kind: str
    joints: tuple[str, ...]

    @property
    def topic(self) -> str:
        """Where its commands go."""
        return f"{self.name}/{'joint_trajectory' if self.kind == TRAJECTORY else 'commands'}"


@dataclass(frozen=True)
class Ros2ControlConfig:
    """The section `ros2_control` of an arm's file.

    Attributes:
        controllers: who moves which joints; each joint has exactly one. The gripper's may be apart.
        joint_states: where the joints are published, by one or several broadcasters.
        cameras: camera name to its image topic, `.../compressed` for compressed pictures.
        reach_periods: a target is to be reached after so many control periods, at most `MAX_REACH`.
        silent_s: without joint states (or a controller's state) for so long, the arm is held [s].
        tracking_rad: an arm joint may be so far from all that was asked of it lately [rad].
        tracking_s: how long is lately: the arm's lag, generously [s].
        camera_silent_s: a camera without pictures for so long has stopped [s].
        found_s: how long to wait for the arm at the start [s].
    """

    controllers: tuple[Controller, ...]
    joint_states: str = "/joint_states"
    cameras: Mapping[str, str] = field(default_factory=dict)
    reach_periods: float = 1.0
    silent_s: float = 0.1
    tracking_rad: float = 0.1
    tracking_s: float = 0.15
    camera_silent_s: float = 0.15
    found_s: float = 10.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], spec: RobotSpec, file: str) -> Ros2ControlConfig:
        """Read the section of an arm's file.

        Args:
            data: the section.
            spec: the arm; each of its joints needs a controller, each of its cameras a topic.
            file: what errors are said to be of.

        Raises:
            ArmFileError: what is wrong with it, all of it.
        """
        where, checked = "ros2_control", Checked(file)
        times = {name: getattr(cls, name) for name in ("silent_s", "tracking_s", "camera_silent_s", "found_s")}
        optional = ("joint_states", "cameras", "reach_periods", "tracking_rad", *times)
        data = checked.mapping(data, where, ("controllers",), optional)
        given = checked.sequence(data, "controllers", where)
        controllers = tuple(_controller(checked, value, f"{where}.controllers[{i}]") for i, value in enumerate(given))
        cameras = checked.mapping(data.get("cameras", {}), f"{where}.cameras", [camera.name for camera in spec.cameras])
        for name in cameras:
            checked.text(cameras, name, f"{where}.cameras")
        if controllers:
            _complete(checked, controllers, spec)
        reach = checked.number(data, "reach_periods", where, 0.0, MAX_REACH, cls.reach_periods)
        tracking = checked.number(data, "tracking_rad", where, 0.0, default=cls.tracking_rad)
        waits = {name: checked.number(data, name, where, 0.0, default=wait) for name, wait in times.items()}
        joint_states = checked.text(data, "joint_states", where) or cls.joint_states
        checked.done()
        return cls(controllers, joint_states, cameras, reach, tracking_rad=tracking, **waits)


def _controller(checked: Checked, value: Any, where: str) -> Controller:
    data = checked.mapping(value, where, ("name", "kind", "joints"))
    joints = [str(joint) for joint in checked.sequence(data, "joints", where)]
    name, kind = checked.text(data, "name", where), checked.text(data, "kind", where, (TRAJECTORY, FORWARD))
    return Controller(name.rstrip("/"), kind, tuple(joints))


def _complete(checked: Checked, controllers: tuple[Controller, ...], spec: RobotSpec) -> None:
    """Every joint of the arm has one controller, and no controller has others."""
    where, joints = "ros2_control", [joint for controller in controllers for joint in controller.joints]
    checked.unique(where, "controllers", joints)
    checked.unique(where, "controllers", (controller.name for controller in controllers))
    for name in (name for name in spec.names if name not in joints):
        checked.note(where, "controllers", f"leave out joint '{name}'")
    for name in (name for name in joints if name not in spec.names):
        checked.note(where, "controllers", f"have a joint '{name}'; {spec.name} has: {', '.join(spec.names)}")
