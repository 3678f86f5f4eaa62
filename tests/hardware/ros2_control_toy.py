"""A toy ros2_control: controllers that do what joint_trajectory_controller's documentation says, over real DDS.

Interpolation `spline` with positions only: linear between points; from the joints' state at its arrival to the first
point, unless that one is at time zero; the last point is held. A stamp of zero means now. A trajectory replaces the one
under way. Without all joints, with times that do not grow, or while the controller is inactive, it is rejected. Where
the path tolerance is violated, it is aborted and the position held.
"""

import threading
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

RATE, LAG_S = 200.0, 0.03  # of the controller manager [Hz]; of the joints' servos [s]
SYSTEM_DEFAULT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Plant:
    """Joints that follow their commands with a lag."""

    def __init__(self, joints):
        self.names = list(joints)
        self.position = np.array(list(joints.values()), float)
        self.command = self.position.copy()
        self.blocked = np.zeros(len(joints), bool)
        self.speed = np.zeros(len(joints))

    def step(self, dt):
        before = self.position.copy()
        move = (self.command - self.position) * min(dt / LAG_S, 1.0)
        self.position = self.position + np.where(self.blocked, 0.0, move)
        self.speed = (self.position - before) / dt


class Controller:
    """What both kinds have in common: a node of its own, some joints of the plant, a state."""

    kind, topic = None, ""

    def __init__(self, toy, name, joints):
        self.plant, self.name, self.joints = toy.plant, name, list(joints)
        self.where = [toy.plant.names.index(joint) for joint in joints]
        self.active, self.heard, self.rejected = True, [], []
        self.executor = toy.executor
        self.node = Node(name, context=toy.context)
        self.state = toy.state_of(self.node)
        self._subscription = self.node.create_subscription(self.kind, f"~/{self.topic}", self.take, SYSTEM_DEFAULT)
        toy.executor.add_node(self.node)

    def unload(self):
        self.executor.create_task(self.node.destroy_subscription, self._subscription)

    def take(self, message):
        self.heard.append((time.monotonic(), message))
        reason = "inactive" if not self.active else self.wrong(message)
        if reason:
            self.rejected.append(reason)
        else:
            self.accept(message)


class TrajectoryController(Controller):
    kind, topic = JointTrajectory, "joint_trajectory"

    def __init__(self, toy, name, joints, tolerance=0.5):
        super().__init__(toy, name, joints)
        self.tolerance, self.path, self.aborts = tolerance, None, 0

    def wrong(self, message):
        times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
        if sorted(message.joint_names) != sorted(self.joints):
            return "not all joints"
        if message.header.stamp.sec or message.header.stamp.nanosec:
            return "a start time of its own"
        if not times or any(b <= a for a, b in pairwise(times)):
            return "times do not grow"
        return "" if all(len(p.positions) == len(self.joints) and not p.velocities for p in message.points) else "sizes"

    def accept(self, message):
        order = [message.joint_names.index(joint) for joint in self.joints]
        points = [
            (p.time_from_start.sec + p.time_from_start.nanosec * 1e-9, np.array(p.positions)[order])
            for p in message.points
        ]
        start = [] if points[0][0] == 0 else [(0.0, self.plant.position[self.where].copy())]
        self.path = (time.monotonic(), [*start, *points])

    def update(self):
        if not self.active:
            self.path = None
            return
        self.state()
        if self.path is None:
            return
        began, points = self.path
        times, values = [at for at, _ in points], np.stack([position for _, position in points])
        now = time.monotonic() - began
        wanted = np.array([np.interp(now, times, column) for column in values.T])
        if np.abs(wanted - self.plant.position[self.where]).max() > self.tolerance:
            self.path, self.aborts = None, self.aborts + 1
            wanted = self.plant.position[self.where]
        self.plant.command[self.where] = wanted


class ForwardController(Controller):
    kind, topic = Float64MultiArray, "commands"

    def wrong(self, message):
        return "" if len(message.data) == len(self.joints) else "sizes"

    def accept(self, message):
        self.plant.command[self.where] = message.data

    def update(self):
        pass


class Toy:
    """The controller manager: the plant, controllers, one or several broadcasters, cameras.

    Args:
        joints: name to position [rad].
        trajectory, forward: controller name to its joints.
        broadcasters: the joints that each has; None for one with all of them, in another order.
        state_kind: message of the controllers' state, None for none.
    """

    def __init__(self, joints, trajectory=None, forward=None, broadcasters=None, state_kind=None):
        self.context, self.plant = Context(), Plant(joints)
        rclpy.init(args=[], context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node, self._state_kind = Node("controller_manager", context=self.context), state_kind
        self.executor.add_node(self.node)
        self.controllers = {
            **{name: TrajectoryController(self, name, own) for name, own in (trajectory or {}).items()},
            **{name: ForwardController(self, name, own) for name, own in (forward or {}).items()},
        }
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._broadcasters = [
            (names, self.node.create_publisher(JointState, "joint_states", qos))
            for names in broadcasters or [list(reversed(joints))]
        ]
        self.talking, self.speeds, self.offset, self.skew_s = True, True, np.zeros(len(joints)), 0.0
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._spin, self._run)]
        for thread in self._threads:
            thread.start()

    def state_of(self, node):
        """What a controller calls once an update to tell its state."""
        if self._state_kind is None:
            return lambda: None
        publisher = node.create_publisher(self._state_kind, "~/controller_state", SYSTEM_DEFAULT)
        return lambda: publisher.publish(self._state_kind())

    def camera(self, topic):
        """A publisher of pictures."""
        kind = CompressedImage if topic.endswith("/compressed") else Image
        return self.node.create_publisher(kind, topic, SYSTEM_DEFAULT)

    def _spin(self):
        with suppress(rclpy.executors.ExternalShutdownException):
            self.executor.spin()

    def _run(self):
        due = time.monotonic()
        while not self._stopping.is_set():
            for controller in self.controllers.values():
                controller.update()
            self.plant.step(1 / RATE)
            if self.talking:
                self._broadcast()
            due = max(due + 1 / RATE, time.monotonic())
            self._stopping.wait(max(due - time.monotonic(), 0.0))

    def _broadcast(self):
        now = time.time_ns() - round(self.skew_s * 1e9)
        measured = self.plant.position + self.offset
        for names, publisher in self._broadcasters:
            where = [self.plant.names.index(name) for name in names]
            message = JointState(name=list(names), position=measured[where].tolist())
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
            if self.speeds:
                message.velocity = self.plant.speed[where].tolist()
            publisher.publish(message)

    def close(self):
        self._stopping.set()
        self._threads[1].join()
        self.executor.shutdown()
        self._threads[0].join()
        for controller in self.controllers.values():
            controller.node.destroy_node()
        self.node.destroy_node()
        self.context.try_shutdown()
