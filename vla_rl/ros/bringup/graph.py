"""The graph: which nodes, in which processes, with which parameters. `vla-rl up` and the launch files both read it.

::

    robot --joint_states, camera/*--> policy --candidates--> steering --chunk--> control --joint_commands--> robot

Nothing here imports rclpy: a graph is plain data. vla_rl.ros.bringup.options makes one from what a user asks for.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class NodeSpec:
    """One node.

    Attributes:
        name: its name, without namespace.
        parameters: those that differ from the node's own defaults.
        lifecycle: whether it is configured and activated from outside.
        after: nodes that must be ready before this one is activated.
        ready: for a node without lifecycle, the JointState topic whose first message says that it is ready.
    """

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    lifecycle: bool = True
    after: tuple[str, ...] = ()
    ready: str = ""


@dataclass(frozen=True)
class ProcessSpec:
    """One process: an executable of this package and the nodes that live in it.

    Attributes:
        name: what its log lines begin with where they do not name a node.
        executable: `robot_node` stands for `ros2 run vla_rl robot_node` and `python -m vla_rl.ros.start robot_node`.
        nodes: the nodes inside.
    """

    name: str
    executable: str
    nodes: tuple[NodeSpec, ...]

    @property
    def program(self) -> tuple[str, ...]:
        """What follows `python -m`: a module and its first argument."""
        return (self.executable,) if "." in self.executable else ("vla_rl.ros.start", self.executable)


@dataclass(frozen=True)
class Graph:
    """Processes and what they share.

    Attributes:
        processes: in the order in which they stop: what moves the arm first, the arm itself last.
        namespace: of every node: "" or "left".
        remappings: (from, to) pairs, for every node.
        environment: variables that every process gets besides those of its parent.
        stop_s: after so long whatever still runs is killed: Ctrl-C promises five seconds, where nothing takes longer.
    """

    processes: tuple[ProcessSpec, ...]
    namespace: str = ""
    remappings: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 4.0

    @property
    def nodes(self) -> tuple[NodeSpec, ...]:
        """Every node of every process."""
        return tuple(node for process in self.processes for node in process.nodes)

    def process(self, name: str) -> ProcessSpec:
        """The process of that name, or the one in which the node of that name lives."""
        return next(p for p in self.processes if p.name == name or any(n.name == name for n in p.nodes))

    def full_name(self, name: str) -> str:
        """The full name of a node or topic: "/left/control"."""
        return "/" + "/".join(part for part in (self.namespace, name) if part)

    def parameters(self) -> str:
        """Every node's parameters as one ROS 2 parameter file (JSON is YAML)."""
        sections = {self.full_name(n.name): {"ros__parameters": dict(n.parameters)} for n in self.nodes if n.parameters}
        return json.dumps(sections, indent=1)

    def ros_arguments(self, params_file: str | Path) -> list[str]:
        """What follows `--ros-args` in every process, given the file that holds `parameters()`."""
        namespace = ["-r", f"__ns:=/{self.namespace}"] if self.namespace else []
        rules = [part for old, new in self.remappings for part in ("-r", f"{old}:={new}")]
        return [*namespace, *rules, "--params-file", str(params_file)]

    def command(self, process: ProcessSpec, params_file: str | Path) -> list[str]:
        """The command line of a plain process, without ROS's own tools."""
        return [sys.executable, "-m", *process.program, "--ros-args", *self.ros_arguments(params_file)]

    def variables(self) -> dict[str, str]:
        """The whole environment of a plain process."""
        return {**os.environ, **self.environment}
