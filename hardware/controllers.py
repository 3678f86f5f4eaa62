"""Controllers: to each controller of ros2_control its joints, and whether it is still there to take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_rl.hardware.ros2_control_config import TRAJECTORY, Controller
from vla_rl.types import Array

LIST = "see: ros2 control list_controllers"
_SEND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_HEAR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LOOK_NS = 50_000_000  # how often the graph is asked who listens


@dataclass(frozen=True, eq=False)
class _Line:
    """A controller, which of the robot's joints it has, and where its commands are published."""

    controller: Controller
    joints: NDArray[np.int_]
    publisher: Any


class Controllers:
    """Publishes commands, and knows who listens.

    Args:
        node: whose publishers they are; somebody spins it.
        controllers: who has which joints.
        names: the robot's joints, in the order of every joint vector.
        reach_s: a trajectory controller is to be at its goal after so long [s].
        silent_s: a state that was told once and is silent for so long is told no more [s].
    """

    def __init__(
        self, node: Any, controllers: Sequence[Controller], names: Sequence[str], reach_s: float, silent_s: float
    ) -> None:
        self._node, self._reach_s, self._silent_ns = node, reach_s, round(silent_s * 1e9)
        self._lines = [self._line(controller, list(names)) for controller in controllers]
        self._looked_ns, self._deaf = 0, ""
        self._states: dict[str, int] = {}
        kind = state_kind()
        for controller in (c for c in controllers if c.kind == TRAJECTORY and kind is not None):
            topic = f"{controller.name}/controller_state"
            node.create_subscription(kind, topic, self._hear(controller.name), _HEAR, raw=True)

    def _line(self, controller: Controller, names: list[str]) -> _Line:
        kind = JointTrajectory if controller.kind == TRAJECTORY else Float64MultiArray
        joints = np.array([names.index(name) for name in controller.joints])
        return _Line(controller, joints, self._node.create_publisher(kind, controller.topic, _SEND))

    def _hear(self, name: str) -> Callable[[bytes], None]:
        def hear(_: bytes) -> None:
            self._states[name] = time.monotonic_ns()

        return hear

    def send(self, goal: Array, start: Array | None = None) -> None:
        """Give each its joints of a goal (J,) [rad].

        Args:
            goal: where to be after `reach_s`.
            start: where to begin, (J,) [rad]; None begins where a controller has its joints.
        """
        for line in self._lines:
            message: Any = Float64MultiArray(data=goal[line.joints].tolist())
            if line.controller.kind == TRAJECTORY:
                begin = [] if start is None else [(0.0, start[line.joints])]
                message = trajectory(line.controller.joints, [*begin, (self._reach_s, goal[line.joints])])
            line.publisher.publish(message)

    def wrong(self, now_ns: int) -> str:
        """Who does not listen, or is not active, at a monotonic time; "" where nobody is missing."""
        return self._unheard(now_ns) or self._inactive(now_ns)

    def _unheard(self, now_ns: int) -> str:
        """A controller that does not subscribe its commands; the graph is asked twenty times a second at most."""
        if now_ns - self._looked_ns > _LOOK_NS or self._deaf:
            self._looked_ns = now_ns
            deaf = [line for line in self._lines if not line.publisher.get_subscription_count()]
            self._deaf = ", ".join(f"nobody subscribes {line.publisher.topic_name}" for line in deaf)
            self._deaf += f": is controller '{deaf[0].controller.name}' loaded? {LIST}" if deaf else ""
        return self._deaf

    def _inactive(self, now_ns: int) -> str:
        """A trajectory controller that told its state and does no more: it tells it only while it is active."""
        for name, at_ns in dict(self._states).items():
            if now_ns - at_ns > self._silent_ns:
                return f"controller '{name}' tells its state no more: it is not active; {LIST}"
        return ""


def trajectory(names: tuple[str, ...], points: list[tuple[float, Array]]) -> JointTrajectory:
    """Positions [rad] at times from now on [s]; a stamp of zero means: begin when it comes."""
    found = JointTrajectory(joint_names=list(names))
    for seconds, positions in points:
        whole, rest = divmod(round(seconds * 1e9), 1_000_000_000)
        when = Duration(sec=whole, nanosec=rest)
        found.points.append(JointTrajectoryPoint(positions=positions.tolist(), time_from_start=when))
    return found


def state_kind() -> Any:
    """The message of a trajectory controller's state, None where control_msgs is missing (it is not on PyPI)."""
    try:
        from control_msgs.msg import JointTrajectoryControllerState
    except ImportError:
        return None
    return JointTrajectoryControllerState
