"""Watch: what goes over the graph's wires, stamped by the middleware as it arrives, for evaluation and fault injection.

Receipt is stamped by the middleware in the listener's process, so a listener that is late itself judges nobody wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl.ros.measure.client import Client
from vla_rl.ros.measure.stalls import Moved, Tick
from vla_rl.ros.messages import joints_of, stamp_ns, vector_of
from vla_rl.types import Array, RobotSpec, Source

_LISTEN = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class Status:
    """What the simulation says of itself in one period; `received_ns` is the system clock, `stamp_ns` the robot's.

    Attributes:
        values: success, reward, terminated, truncated, steps, seed, episode, holding.
        instruction: of the episode.
        target, touched: names of the thing meant and of the thing touched first, "" where there is none.
    """

    received_ns: int
    stamp_ns: int
    values: Mapping[str, float]
    instruction: str
    target: str = ""
    touched: str = ""

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return any(self.values[key] for key in ("success", "terminated", "truncated"))


@dataclass(frozen=True, eq=False)
class Command:
    """One command to the robot: when it arrived, when control sent it, and joint targets, (J,) [rad]."""

    received_ns: int
    sent_ns: int
    targets: Array


@dataclass(eq=False)
class Heard:
    """Everything since the last `clear`, in order of arrival."""

    ticks: list[Tick] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    moves: list[Moved] = field(default_factory=list)
    spans_ns: dict[int, int] = field(default_factory=dict)
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)


class Watch(Client):
    """A listener on commands, what reached the arm of them, steps, chunks, simulation status and diagnostics.

    Args:
        spec: the robot, for the order of joints.
        namespace: the graph's.
        max_open_loop_s: no chunk is valid for longer [s].
        domain: ROS domain; None takes ROS_DOMAIN_ID.
    """

    def __init__(
        self, spec: RobotSpec, namespace: str = "", max_open_loop_s: float = 0.5, domain: int | None = None
    ) -> None:
        super().__init__("watch", namespace, domain)
        self.spec, self.heard = spec, Heard()
        self._max_open_loop_s = max_open_loop_s
        self.listen(JointState, "joint_commands", self._command, _LISTEN)
        self.listen(JointState, "joint_targets", self._moved, _LISTEN)
        self.listen(JointState, "control/step", self._step, _LISTEN)
        self.listen(JointState, "sim/status", self._status, _LISTEN)
        self.listen(JointTrajectory, "steering/chunk", self._chunk, _LISTEN)
        self.listen(DiagnosticArray, "/diagnostics", self._diagnosed, _LISTEN)

    def clear(self) -> None:
        """Forget what was heard so far, except the newest status and diagnostics."""
        self.heard = Heard(statuses=self.heard.statuses[-1:], diagnostics=self.heard.diagnostics)

    @property
    def status(self) -> Status | None:
        """The newest status of the simulation."""
        return self.heard.statuses[-1] if self.heard.statuses else None

    def figure(self, part: str, key: str) -> float:
        """A number from the diagnostics of the part whose name ends with `part`; NaN where it says none."""
        for name, values in self.heard.diagnostics.items():
            if key in values and part in name:
                return float(values[key])
        return float("nan")

    def _command(self, message: Any, received_ns: int, sent_ns: int) -> None:
        with suppress(ValueError):  # a stranger's: the robot refuses it too
            self.heard.commands.append(Command(received_ns, sent_ns, joints_of(message, self.spec.names)))

    def _moved(self, message: Any, received_ns: int, sent_ns: int) -> None:
        held = message.header.frame_id == "hold"
        with suppress(ValueError):  # a stranger's
            targets = joints_of(message, self.spec.names)
            self.heard.moves.append(Moved(sent_ns, targets, stamp_ns(message.header.stamp), held))

    def _step(self, message: Any, received_ns: int, sent_ns: int) -> None:
        values = vector_of(message)
        executed = np.array([values.get(f"executed/{name}", np.nan) for name in self.spec.names])
        chunk = round(values["chunk_stamp_s"]) * 10**9 + round(values["chunk_stamp_ns"])
        source, stamp = Source(round(values["source"])), stamp_ns(message.header.stamp)
        self.heard.ticks.append(Tick(received_ns, executed, source, chunk, sent_ns, stamp))

    def _status(self, message: Any, received_ns: int, sent_ns: int) -> None:
        values = vector_of(message)
        named = {
            key: name.removeprefix(key) for key in ("target/", "touched/") for name in values if name.startswith(key)
        }
        self.heard.statuses.append(
            Status(
                received_ns,
                stamp_ns(message.header.stamp),
                values,
                message.header.frame_id,
                named.get("target/", ""),
                named.get("touched/", ""),
            )
        )

    def _chunk(self, message: Any, received_ns: int, sent_ns: int) -> None:
        times = [
            p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points[:1] + message.points[-1:]
        ]
        span = min(times[-1] - times[0], self._max_open_loop_s) if times else 0.0
        self.heard.spans_ns[stamp_ns(message.header.stamp)] = round(span * 1e9)

    def _diagnosed(self, message: Any, received_ns: int, sent_ns: int) -> None:
        for status in message.status:
            self.heard.diagnostics[status.name] = {entry.key: entry.value for entry in status.values}
