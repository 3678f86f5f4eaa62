"""RobotAlone: a robot_node in a process of its own, in a ROS domain of its own, with nobody else on its topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Self

import numpy as np
from sensor_msgs.msg import JointState

from vla_rl.robot import arm_spec
from vla_rl.ros import messages, qos
from vla_rl.ros.measure import fuzz
from vla_rl.ros.measure.client import Client, wait_until
from vla_rl.types import Array

START_S, END_S = 120.0, 30.0
_FUZZED = 4  # every so often a command is well-formed, and wrong in its values alone


class RobotAlone:
    """A robot_node with these parameters, up and telling its joints.

    Args:
        parameters: of robot_node.
        arm: its description.

    Raises:
        TimeoutError: it does not come up.
    """

    def __init__(self, parameters: dict[str, Any], arm: str = "so101") -> None:
        self._spec, domain = arm_spec(arm), 40 + os.getpid() % 50
        local = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        rules = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vla_rl.ros.start", "robot_node", "--ros-args", *rules],
            env={**os.environ, **local}, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.environ.update(local)
        self._client = Client("measure", domain=domain)
        self.states: list[JointState] = []
        self._client.listen(JointState, "joint_states", self._heard, qos.LATEST)
        self._commands = self._client.node.create_publisher(JointState, "joint_commands", qos.OFFER)
        wait_until(lambda: bool(self.states) or not self.alive, START_S, f"robot_node comes up; it said: {self.said}")

    def _heard(self, message: JointState, *_: int) -> None:
        self.states = [message]

    @property
    def alive(self) -> bool:
        """Whether its process lives."""
        return self._process.poll() is None

    @property
    def said(self) -> str:
        """Its log so far."""
        self._log.seek(0)
        return self._log.read()

    @property
    def joints(self) -> Array:
        """As it told them last, (J,) [rad]."""
        return messages.joints_of(self.states[-1], self._spec.names)

    def command(self, targets: Array) -> None:
        """Command joint targets, (J,) [rad]."""
        self._commands.publish(messages.joint_state(self._spec.names, targets, time.time_ns()))

    def fuzz(self, count: int, seed: int = 0) -> None:
        """Send so many commands: malformed ones, and well-formed ones whose values are near, far and far outside."""
        rng, names = np.random.default_rng(seed), self._spec.names
        for i in range(count):
            if i % _FUZZED == 0:
                values = rng.uniform(-1, 1, len(names)) * rng.choice([0.1, 1.0, 3.0, 100.0, 1e9])
                self.command(self.joints + values)
            else:
                self._commands.publish(fuzz.joint_state(rng, names))
            time.sleep(5e-4 if i % _FUZZED else 1e-3)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for its end; returns its status."""
        self._process.send_signal(number)
        return self._process.wait(END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self._process.kill()
            self._process.wait()
        self._client.close()
        self._log.close()
