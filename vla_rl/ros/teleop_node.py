"""teleop_node: LeRobot's teleoperators on our topics: a leader arm as `leader/joint_states`, others as `human/twist`.

hil_node's devices `leader` and `twist` listen there. A device that falls silent is lost, and then control holds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState

from vla_rl import build_arm
from vla_rl.execute.loop import PeriodicLoop
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos
from vla_rl.ros.arm_settings import mapping
from vla_rl.ros.node import OK, WARNING, Health, LifecycleNode
from vla_rl.ros.node import main as run
from vla_rl.ros.parameters import parameter

SILENT_S, SLOW = 0.5, 3.0  # a device that says nothing for longer, and for so many of its periods, is named


@dataclass(frozen=True)
class TeleopConfig:
    """Parameters of teleop_node."""

    arm: str = parameter("so101", "the description of the arm that is moved: a name, or a .yaml file")
    driver: str = parameter("so101_leader", "LeRobot's name of the teleoperator")
    port: str = parameter("", "its serial port, where it has one")
    id: str = parameter("", "LeRobot's name of this very device; empty: its type's")
    calibration: str = parameter("", "folder of its calibration; empty: LeRobot's own")
    settings: str = parameter("", "further fields of LeRobot's configuration, YAML or its file")
    rate: float = parameter(60.0, "how often it is read [Hz]", 1.0, 1000.0)


class TeleopNode(LifecycleNode):
    """See the module."""

    kind = TeleopConfig
    config: TeleopConfig

    def __init__(self, **options: Any) -> None:
        self._stopping = Event()
        self._thread: Thread | None = None
        self._device: Any = None
        self._told = self._missed = self._heard_ns = 0
        super().__init__("teleop", **options)

    def accept(self, config: TeleopConfig) -> None:
        """Only while there is no device."""
        if self._device is not None:
            raise ValueError("teleop's parameters change while it is unconfigured")

    def configure(self) -> None:
        """Connect the device."""
        config = self.config
        self._spec = arm_spec(config.arm)
        own = {"port": config.port, "id": config.id or config.driver, "calibration_dir": config.calibration}
        self._device = build_arm.make_teleop(self._spec, config.driver, {**own, **mapping("settings", config.settings)})

    def activate(self) -> None:
        """Say what the device says, from now on."""
        leads = self._device.leads
        self._joints = self.create_publisher(JointState, "leader/joint_states", qos.OFFER) if leads else None
        self._twist = None if leads else self.create_publisher(TwistStamped, "human/twist", qos.OFFER)
        self._stopping.clear()
        self._heard_ns = time.monotonic_ns()
        self._thread = Thread(target=self.guarded(self._run), name="teleop")
        self._thread.start()

    def _run(self) -> None:
        for _ in PeriodicLoop(1.0 / self.config.rate).ticks():
            if self._stopping.is_set():
                return
            try:
                self._tell(self._device.read())
            except ConnectionError as error:
                self._missed += 1
                self.warn(str(error), "device")

    def _tell(self, said: Any) -> None:
        self._told, self._heard_ns = self._told + 1, time.monotonic_ns()
        if self._joints is not None:
            self._joints.publish(messages.joint_state(self._spec.names, said.joints, said.stamp_ns))
        if self._twist is not None:
            message = TwistStamped()
            message.header.stamp = messages.time(said.stamp_ns)
            message.twist.linear.x, message.twist.linear.y, message.twist.linear.z = said.twist[:3].tolist()
            self._twist.publish(message)

    def deactivate(self) -> None:
        """Say nothing more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for publisher in (self._joints, self._twist):
            if publisher is not None:
                self.destroy_publisher(publisher)

    def cleanup(self) -> None:
        """Let go of the device."""
        if self._device is not None:
            self._device.close()
            self._device = None

    def close(self) -> None:
        """Fall silent, and let go of the device."""
        super().close()
        self.cleanup()

    def health(self) -> Health:
        """How often it was read, and whether it still is."""
        values: dict[str, object] = {"said": self._told, "missed": self._missed}
        if not self.active:
            return Health(OK, "not active", values)
        silent_s = (time.monotonic_ns() - self._heard_ns) * 1e-9
        if silent_s > max(SILENT_S, SLOW / self.config.rate):
            silence = f"{self.config.driver} has said nothing for {silent_s:.1f} s: is it plugged in and powered?"
            return Health(WARNING, f"{silence} After it was unplugged, configure teleop anew", values)
        return Health(OK, "running", values)


def main() -> int:
    """Run the node in a process of its own."""
    return run(TeleopNode)
