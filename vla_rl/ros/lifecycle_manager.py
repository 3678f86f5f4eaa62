"""Configures and activates lifecycle nodes in their order, also when one was started again: for launch files.

`vla-rl up` needs none, since its supervisor knows its processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import JointState

from vla_rl.ros import node
from vla_rl.ros.bringup.graph import NodeSpec
from vla_rl.ros.bringup.lifecycle import Ascents
from vla_rl.ros.node import OK, WARNING, Health
from vla_rl.ros.parameters import parameter
from vla_rl.ros.qos import LATEST

_TICK_S = 0.1


@dataclass(frozen=True)
class LifecycleManagerConfig:
    """Which nodes, in which order."""

    nodes: tuple[str, ...] = parameter(
        ("control", "steering", "policy"), "lifecycle nodes, each activated after those before it", fixed=True
    )
    after: str = parameter("joint_states", "JointState topic that must be heard before the first", fixed=True)


class LifecycleManager(node.Node):
    """Drives the nodes one step at each tick."""

    kind = LifecycleManagerConfig

    def __init__(self, **options: Any) -> None:
        super().__init__("lifecycle_manager", **options)
        order = self.config.nodes
        specs = [NodeSpec(name, after=("robot", *order[:i])) for i, name in enumerate(order)]
        self._robot_heard = not self.config.after
        self._ascents = Ascents(self, specs, lambda _: self._robot_heard, watch=True)
        self._said_ready = False
        if self.config.after:
            self._robot = self.create_subscription(JointState, self.config.after, self._first, LATEST)
        self.create_timer(_TICK_S, self._tick)

    def _first(self, _: JointState) -> None:
        self._robot_heard = True
        self.executor.create_task(self.destroy_subscription, self._robot)

    def _tick(self) -> None:
        """One step; ValueError, which ends the process, where a node refuses."""
        self._ascents.tick()
        if self._said_ready != self._ascents.all_ready:
            self._said_ready = not self._said_ready
            self.get_logger().info("every node is active" if self._said_ready else "a node was started again")
        refusals = [f"{name} refuses to {a.refused}" for name, a in self._ascents.by_name.items() if a.refused]
        if refusals:
            raise ValueError(f"{'; '.join(refusals)}: see its own error above")

    def health(self) -> Health:
        """Which nodes are active."""
        states = {name: "active" if a.active else a.state or "silent" for name, a in self._ascents.by_name.items()}
        return Health(OK if self._ascents.all_ready else WARNING, "active" if self._said_ready else "starting", states)


def main() -> int:
    """Run the node until a signal, or until a node refuses."""
    return node.main(LifecycleManager)
