"""A graph as actions of ROS's own `launch`: declared arguments, nodes that are started again, their lifecycle driven.

A launch file has no supervisor, so one node more, `lifecycle_manager`, configures and activates the others, also after
a restart. Like the supervisor, a process is started again three times, and a node that refuses ends the launch.
`launch` and `launch_ros` are imported where they are used: they come with ROS only, not from PyPI.
"""

from __future__ import annotations

import atexit
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl.ros.bringup import names
from vla_rl.ros.bringup.graph import Graph, NodeSpec, ProcessSpec
from vla_rl.ros.bringup.options import Option
from vla_rl.ros.start import LAUNCHER

if TYPE_CHECKING:
    from launch import LaunchContext, LaunchDescription
    from launch.events.process import ProcessExited

PACKAGE = "vla_rl"
MAX_RESTARTS = 3
_RULES = {
    "parameters": "NODE.NAME=VALUE rules with spaces between; they win over everything",
    "remappings": "FROM:=TO rules with spaces between",
}


def describe(options: Sequence[Option], make_graph: Callable[..., Graph]) -> LaunchDescription:
    """A launch description with an argument for each option, and the graph that they ask for."""
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    def actions(context: LaunchContext) -> list[Any]:
        given = context.launch_configurations
        asked = {o.name: given[o.name] for o in options}
        asked["namespace"] = "/".join(p for p in (given.get("ros_namespace", ""), given["namespace"]) if p)
        names.check_domain(os.environ.get("ROS_DOMAIN_ID"))
        return start(make_graph(asked, *(shlex.split(given[rule]) for rule in _RULES)))

    declared = [DeclareLaunchArgument(o.name, default_value="", description=_description(o)) for o in options]
    declared += [DeclareLaunchArgument(name, default_value="", description=text) for name, text in _RULES.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=actions)])


def _description(option: Option) -> str:
    choices = f": {', '.join(option.choices)}" if option.choices else ""
    return f"{option.help}{choices}" + (f"; '' means {option.default}" if option.default else "")


def start(graph: Graph) -> list[Any]:
    """Actions that start every process of a graph and drive its lifecycle nodes."""
    manager = NodeSpec("lifecycle_manager", {"nodes": [n.name for n in activation_order(graph)], "after": ready(graph)})
    processes = (*graph.processes, ProcessSpec("lifecycle_manager", "lifecycle_manager", (manager,)))
    graph = replace(graph, processes=processes)
    file = _parameter_file(graph)
    return [action for process in graph.processes for action in _process(graph, process, file)]


def activation_order(graph: Graph) -> list[NodeSpec]:
    """The lifecycle nodes, each after those that it needs."""
    left, done = [n for n in graph.nodes if n.lifecycle], {n.name for n in graph.nodes if not n.lifecycle}
    order: list[NodeSpec] = []
    while left:
        node = next(n for n in left if done.issuperset(n.after))
        left.remove(node)
        done.add(node.name)
        order.append(node)
    return order


def ready(graph: Graph) -> str:
    """The topic that says that what comes before the lifecycle nodes is there, "" for none."""
    return next((n.ready for n in graph.nodes if n.ready), "")


def _process(graph: Graph, process: ProcessSpec, file: Path) -> list[Any]:
    """One process, started again when it ends; the launch ends with its last restart, or with the manager."""
    from launch.actions import EmitEvent, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown
    from launch_ros.actions import Node

    again = process.name != "lifecycle_manager"
    node = Node(
        **_executable(process),
        namespace=f"/{graph.namespace}",
        exec_name=process.name,
        ros_arguments=graph.ros_arguments(file),
        additional_env={**graph.environment, LAUNCHER: str(os.getpid())},
        output="screen",
        respawn=again,
        respawn_delay=0.2,
        sigterm_timeout=str(graph.stop_s),
    )
    ends: Counter[str] = Counter()

    def ended(event: ProcessExited, context: LaunchContext) -> list[Any]:
        ends[process.name] += 1
        if context.is_shutdown or (again and ends[process.name] <= MAX_RESTARTS):
            return []
        reason = f"{process.name} ended with status {event.returncode}"
        return [EmitEvent(event=Shutdown(reason=f"{reason}, after {MAX_RESTARTS} restarts" if again else reason))]

    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))]


def _executable(process: ProcessSpec) -> dict[str, Any]:
    """The installed executable, or, where the package is only on Python's path, this Python with the node's module."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        if (Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / process.executable).exists():
            return {"package": PACKAGE, "executable": process.executable}
    except PackageNotFoundError:
        pass
    return {"executable": sys.executable, "arguments": ["-m", *process.program]}


def _parameter_file(graph: Graph) -> Path:
    """The graph's parameters as a file that lives as long as the launch."""
    with tempfile.NamedTemporaryFile("w", prefix="vla_rl_", suffix=".yaml", delete=False) as file:
        file.write(graph.parameters())
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path
