"""An operator's device by name: some come by topic, others as a file of this host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState, Joy

from vla_rl.hil.device import Command, Device
from vla_rl.hil.devices import DEVICES
from vla_rl.hil.devices.fed import Fed
from vla_rl.hil.devices.gamepad import Gamepad
from vla_rl.hil.devices.keyboard import Keyboard
from vla_rl.hil.devices.spacemouse import SpaceMouse
from vla_rl.hil.devices.tape import Tape
from vla_rl.hil.driving import Driving
from vla_rl.ros import messages, qos
from vla_rl.ros.node import Receipt
from vla_rl.types import RobotSpec

_SMALL = 16384  # bytes


def open_device(node: Any, name: str, path: str, spec: RobotSpec) -> Device | None:
    """A device by name; None for `page`, since every page is one.

    Args:
        node: who subscribes to what comes by topic.
        name: of `DEVICES`.
        path: a file, for those that have one.
        spec: the robot.

    Raises:
        ValueError: no such device, or it needs a file.
        OSError: its file can not be opened.
    """
    makers: dict[str, Callable[[], Device | None]] = {
        "page": lambda: None,
        "keyboard": lambda: Keyboard(Driving(spec), path or "/dev/tty"),
        "gamepad": lambda: _gamepad(node, spec),
        "leader": lambda: _leader(node, spec),
        "spacemouse": lambda: SpaceMouse(Driving(spec), _named(name, path)),
        "twist": lambda: _twist(node),
        "replay": lambda: Tape.load(_named(name, path)),
    }
    if name not in makers:
        raise ValueError(f"unknown device '{name}'; there are: {', '.join(DEVICES)}")
    return makers[name]()


def _named(name: str, path: str) -> str:
    if not path:
        raise ValueError(f"device '{name}' needs its file in device_path")
    return path


def _gamepad(node: Any, spec: RobotSpec) -> Device:
    """`joy`, as the joy package's joy_node publishes it."""
    device = Gamepad(Driving(spec))

    def heard(message: Joy, receipt: Receipt) -> None:
        device.heard(message.axes, message.buttons, receipt.received_ns)

    node.subscribe(Joy, "joy", heard, qos.PRESSES, _SMALL)
    return device


def _leader(node: Any, spec: RobotSpec) -> Device:
    """Another arm of the same joints: `leader/joint_states`."""
    device = Fed("leader arm")

    def heard(message: JointState, receipt: Receipt) -> None:
        device.put(Command(targets=messages.joints_of(message, spec.names)), receipt.received_ns)

    node.subscribe(JointState, "leader/joint_states", heard, qos.LATEST, _SMALL)
    return device


def _twist(node: Any) -> Device:
    """Whatever publishes `human/twist`, of the gripper in the base frame [m/s], [rad/s]."""
    device = Fed("twist")

    def heard(message: TwistStamped, receipt: Receipt) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if not np.isfinite(twist).all():
            raise ValueError("a twist that is not finite")
        device.put(Command(twist=twist), receipt.received_ns)

    node.subscribe(TwistStamped, "human/twist", heard, qos.LATEST, _SMALL)
    return device
