"""Small real nodes for the supervisor's tests: a robot, and lifecycle nodes that may misbehave."""

import signal
import sys
import time

import rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import JointState


class ToyRobot(Node):
    """Publishes joint_states at 50 Hz and says when it hears no commands any more."""

    def __init__(self):
        super().__init__("robot")
        self.declare_parameter("life_s", 0.0)
        self.born = time.monotonic()
        self.publisher = self.create_publisher(JointState, "joint_states", 1)
        self.create_timer(0.02, self.tick)

    def tick(self):
        self.publisher.publish(JointState(name=["a"], position=[0.0]))
        life = self.get_parameter("life_s").value
        if life and time.monotonic() - self.born > life:
            sys.exit(3)


class ToyWorker(LifecycleNode):
    """Logs its transitions; parameters make it slow, refuse, die or hang."""

    def __init__(self, name):
        super().__init__(name)
        known = ("configure_s", "life_s", "refuse", "deaf")
        if unknown := sorted(self._parameter_overrides.keys() - set(known)):
            self.get_logger().error(f"unknown parameter '{unknown[0]}'")
            sys.exit(1)
        for parameter, default in (("configure_s", 0.0), ("life_s", 0.0), ("refuse", ""), ("deaf", False)):
            self.declare_parameter(parameter, default)
        self.active_since = 0.0
        self.publisher = self.create_publisher(JointState, "control/step", 1)
        self.create_timer(0.02, self.tick)

    def transition(self, name):
        if self.get_parameter("refuse").value == name:
            self.get_logger().error(f"no {name} today")
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"{name}d")
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state):
        time.sleep(self.get_parameter("configure_s").value)
        return self.transition("configure")

    def on_activate(self, state):
        self.active_since = time.monotonic()
        return self.transition("activate")

    def on_deactivate(self, state):
        self.active_since = 0.0
        return self.transition("deactivate")

    def tick(self):
        life = self.get_parameter("life_s").value
        if self.active_since and self.get_name() == "control":
            self.publisher.publish(JointState(name=["source"], position=[0.0]))
        if self.active_since and life and time.monotonic() - self.active_since > life:
            self.get_logger().error("I cannot go on")
            sys.exit(4)


def main(*names):
    rclpy.init(args=sys.argv, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    nodes = [ToyRobot() if name == "robot" else ToyWorker(name) for name in names]
    deaf = any(n.has_parameter("deaf") and n.get_parameter("deaf").value for n in nodes)
    stop = []
    signal.signal(signal.SIGTERM, (lambda *_: None) if deaf else (lambda *_: stop.append(1)))
    executor = rclpy.executors.SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    while not stop:
        executor.spin_once(timeout_sec=0.05)
    for node in nodes:
        node.get_logger().info("leaves")
