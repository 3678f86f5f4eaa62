"""Ros2ControlArm: any arm under ros2_control as a Robot. Joint states in, commands to its controllers out.

A joint_trajectory_controller gets a trajectory of one control period, again and again: from the target before to the
target now, and there it stays by itself. What it has of us ends within `MAX_REACH` periods, whatever becomes of us.
A forward position controller gets a target a period. Nobody answers: what the arm does is watched (see `liveness`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from vla_rl.hardware.controllers import LIST, Controllers
from vla_rl.hardware.image_topics import Decode, ImageTopics
from vla_rl.hardware.joint_states import JointStates
from vla_rl.hardware.liveness import Liveness, shut_out
from vla_rl.hardware.ros2_control_config import Ros2ControlConfig
from vla_rl.robot import Fault, Frame, Sensed
from vla_rl.types import Array, Image, Observation, RobotSpec

NAME = "ros2_control_arm"
_HEAR = QoSProfile(depth=16, reliability=ReliabilityPolicy.BEST_EFFORT)  # several broadcasters share a topic


@dataclass(frozen=True, eq=False)
class _Motion:
    """What the controllers were given last: from `start` to `goal`, (J,) [rad], within `seconds`, since `began_ns`."""

    start: Array
    goal: Array
    began_ns: int
    seconds: float

    def at(self, now_ns: int) -> Array:
        """Where they have got by now, (J,) [rad], monotonic clock."""
        done = min(max((now_ns - self.began_ns) * 1e-9 / self.seconds, 0.0), 1.0)
        return self.start + done * (self.goal - self.start)


class Ros2ControlArm:
    """See the module.

    Args:
        spec: the arm.
        config: its topics and controllers.
        raw, compressed: how pictures are decoded, see `ImageTopics`.
        node: a node of this process, whose namespace and context are used; None makes a context of its own.

    Raises:
        ValueError: it would hear itself, or there is no arm at these topics, or its limits exclude where the arm is.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: Ros2ControlConfig,
        raw: Decode | None = None,
        compressed: Decode | None = None,
        node: Any = None,
    ) -> None:
        self.spec, self.config, self._lock = spec, config, Lock()
        self._grippers = np.array([joint.gripper for joint in spec.joints])
        self._liveness = self._watch()
        self._latched = ""
        self._motion: _Motion | None = None
        self._held: Array | None = None
        self._kept: Array = np.zeros(len(spec.joints))
        self._counts = dict.fromkeys(("commands", "faults"), 0)
        self._context = Context() if node is None else node.context
        self._own_context = node is None
        if self._own_context:
            rclpy.init(args=[], context=self._context)
        namespace = "/" if node is None else node.get_namespace()
        self._node = Node(NAME, context=self._context, namespace=namespace, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._thread = Thread(target=self._spin, name=NAME, daemon=True)
        try:
            self._connect(node, raw, compressed)
            self._thread.start()
            self._await()
        except BaseException:
            self.close()
            raise

    def _watch(self) -> Liveness:
        """What asks nothing of the past."""
        return Liveness(self.spec, self.config.tracking_rad, self.config.tracking_s)

    def _connect(self, node: Any, raw: Decode | None, compressed: Decode | None) -> None:
        heard = self._node.resolve_topic_name(self.config.joint_states)
        if node is not None and node.resolve_topic_name("joint_states") == heard:
            raise ValueError(
                f"{heard} would be the arm's joint states and our own; give the graph a namespace of its own"
            )
        self._joints = JointStates(self._node, self.config.joint_states, self.spec.names, _HEAR)
        reach, silent = self.config.reach_periods / self.spec.rate, self.config.silent_s
        self._controllers = Controllers(self._node, self.config.controllers, self.spec.names, reach, silent)
        self._cameras = None
        if self.config.cameras:
            if raw is None or compressed is None:
                raise ValueError("an arm with image topics needs a way to decode pictures")
            self._cameras = ImageTopics(self._node, self.config.cameras, raw, compressed, self.config.camera_silent_s)
        self._executor.add_node(self._node)

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _await(self) -> None:
        """Wait until the arm is there, and make sure that it may be where it is."""
        until = time.monotonic() + self.config.found_s
        while (absent := self._absent()) and time.monotonic() < until:
            time.sleep(0.02)
        if absent:
            raise ValueError(absent)
        if outside := shut_out(self.spec, self._sensed().joints):
            raise ValueError(outside)
        self._kept = self._place()

    def _absent(self) -> str:
        """What of the arm is not there yet; "" where all of it is."""
        topic = self._node.resolve_topic_name(self.config.joint_states)
        if self._joints.sensed() is None:
            if not self._node.count_publishers(topic):
                return f"nobody publishes {topic}: is ros2_control running, and in the same ROS domain? {LIST}"
            return f"{topic} says nothing of {', '.join(self._joints.missing())}; {self._joints.story()}"
        return self._controllers.wrong(time.monotonic_ns())

    def now_ns(self) -> int:
        """The arm's host's clock [ns]."""
        return int(self._node.get_clock().now().nanoseconds)

    def sense(self) -> Sensed:
        """The newest joints; while joint states are silent they stay what they were, stamp and all."""
        with self._lock:
            self._check()
            return self._sensed()

    def _sensed(self) -> Sensed:
        sensed = self._joints.sensed()
        assert sensed is not None, "the arm was there at the start"
        return sensed

    @property
    def fault(self) -> str:
        """What keeps the arm from following, in one line; "" where nothing does. It stays until `recover`."""
        with self._lock:
            return self._check()

    def _check(self) -> str:
        """Latch what is wrong, and hold the arm the moment that something is."""
        if not self._latched and (wrong := self._wrong()):
            self._latched = wrong
            self._counts["faults"] += 1
            self._stay()
        return self._latched

    def _wrong(self) -> str:
        now = time.monotonic_ns()
        if silent := self._joints.silent(now, self.config.silent_s):
            return silent
        if absent := self._controllers.wrong(now):
            return absent
        sensed = self._sensed()
        return self._liveness.see(sensed.joints, sensed.stamp_ns, now)

    def recover(self) -> None:
        """Look again, and take commands from where the arm is.

        Raises:
            Fault: it is not well yet.
        """
        with self._lock:
            before, self._liveness = self._liveness, self._watch()
            try:
                self._look_again()
            except Fault:
                self._liveness = before  # an encoder that was lost still is
                raise
            self._latched, self._motion, self._held = "", None, None

    def _look_again(self) -> None:
        if wrong := self._wrong():
            self._latched = wrong
            raise Fault(wrong)
        if outside := shut_out(self.spec, self._sensed().joints):
            raise Fault(outside)

    def command(self, targets: Array) -> Array:
        """Send joint targets (J,) [rad], within the position limits; returns what was sent.

        Raises:
            Fault: the arm does not follow; nothing was sent.
            ValueError: wrong size or a value that is not finite; nothing was sent.
        """
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape != self._kept.shape or not np.isfinite(targets).all():
            raise ValueError(f"a command is {len(self._kept)} finite joint targets, got {targets}")
        with self._lock:
            if fault := self._check():
                raise Fault(fault)
            now, goal = time.monotonic_ns(), np.clip(targets, self.spec.low, self.spec.high)
            start = self._place() if self._motion is None else self._motion.at(now)
            self._motion, self._held = _Motion(start, goal, now, self.config.reach_periods / self.spec.rate), None
            self._send(goal, start)
            self._liveness.ask(goal, now)
            return goal.copy()

    def hold(self) -> Array:
        """Stay: arm joints where they are, or at the last command where that is not known; grippers keep theirs."""
        with self._lock:
            self._stay()
            return self._kept.copy()

    def _stay(self) -> None:
        """Hold at one place, decided once; where that is not known, the controllers keep what they have."""
        if self._liveness.lost or self._joints.silent(time.monotonic_ns(), self.config.silent_s):
            return
        if self._held is None:
            self._held = np.where(self._grippers, self._kept, self._place())
        self._motion = None
        self._send(self._held)

    def _place(self) -> Array:
        """Where the arm is, within its limits, (J,) [rad]."""
        return np.clip(self._sensed().joints, self.spec.low, self.spec.high)

    def _send(self, goal: Array, start: Array | None = None) -> None:
        self._controllers.send(goal, start)
        self._kept = goal
        self._counts["commands"] += 1

    def frames(self) -> Mapping[str, Frame]:
        """The newest picture of each camera; one that fell silent is missing."""
        return {} if self._cameras is None else self._cameras.frames()

    def pictures(self) -> dict[str, Image]:
        """The newest picture of each camera."""
        return {name: frame.image for name, frame in self.frames().items()}

    def observe(self) -> Observation | None:
        """Joints and pictures of now, or None while the arm or a camera is silent."""
        if self.fault:
            return None
        sensed, frames = self.sense(), self.frames()
        if len(frames) < len(self.config.cameras):
            return None
        stamps = {"joints": sensed.stamp_ns} | {name: frame.stamp_ns for name, frame in frames.items()}
        newest = max(stamps.values())
        ages = {name: (newest - stamp) * 1e-9 for name, stamp in stamps.items()}
        return Observation(sensed.joints, {name: f.image for name, f in frames.items()}, "", newest, ages)

    def figures(self) -> Mapping[str, float]:
        """Commands sent, faults, joint states refused, their age [s] and the tracking error [rad]."""
        with self._lock:
            age, refused = self._joints.age(time.monotonic_ns()), self._joints.refused
        states = {"joint_states_age_s": age, "joint_states_refused": refused}
        return {**self._counts, **states, "tracking_rad": self._liveness.error_rad}

    def close(self) -> None:
        """Leave the arm where it is, held by its controllers."""
        self._executor.shutdown()
        if self._thread.is_alive():
            self._thread.join()
        self._node.destroy_node()
        if self._own_context:
            self._context.try_shutdown()
