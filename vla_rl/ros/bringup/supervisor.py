"""Runs a graph as plain processes: starts it by readiness, restarts what dies, and stops it with the arm held.

Starting: every process at once, since loading libraries takes longest; then each lifecycle node is configured as soon
as it answers and activated once the nodes before it are ready. Stopping: control is deactivated first, which holds the
arm, and the robot leaves last. What has worked may crash and come back; what never worked is not tried again.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from vla_rl.ros import dds
from vla_rl.ros.bringup import names
from vla_rl.ros.bringup.claim import Claim, running
from vla_rl.ros.bringup.console import ROS_FORMAT, Console
from vla_rl.ros.bringup.graph import Graph, ProcessSpec
from vla_rl.ros.bringup.lifecycle import Ascents
from vla_rl.ros.bringup.processes import Child
from vla_rl.types import Source

_HOLD_S = 1.0  # for control to deactivate
_OTHERS_S = 3.0  # for everything but the robot, which leaves last
_TICK_S = 0.05
_LISTEN = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass
class Progress:
    """What happened so far; times in seconds since the supervisor was made, None before it happened.

    Attributes:
        ready_s: every node was ready.
        first_chunk_s: the arm executed the first action of a chunk.
        restarts: how often each process was started again.
        exits: exit status of each process that has ended, negative for a signal.
        failure: why the graph has to stop, "" while all is well.
    """

    ready_s: float | None = None
    first_chunk_s: float | None = None
    restarts: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    failure: str = ""


class Supervisor:
    """A graph of nodes as child processes.

    Args:
        graph: what to run.
        console: where the nodes' lines go.
        patience_s: the longest that starting may take, also after a restart.
        restarts: how often one process may be started again.
        around: gives for a process's name a context in which it is started.
        began: time.monotonic() of the command, from which the times in `progress` count.
    """

    def __init__(
        self,
        graph: Graph,
        console: Console,
        patience_s: float = 120.0,
        restarts: int = 3,
        began: float | None = None,
        around: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._claim = Claim(graph, names.check_domain(os.environ.get("ROS_DOMAIN_ID")))
        self.graph, self.console = graph, console
        self.progress = Progress(restarts={p.name: 0 for p in graph.processes})
        self._began = time.monotonic() if began is None else began
        self._patience_s, self._restarts, self._around = patience_s, restarts, around
        os.environ.update(graph.environment)
        dds.use_profile()
        dds.sweep()
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self.node = Node(
            "supervisor",
            context=self._context,
            namespace=f"/{graph.namespace}",
            enable_rosout=False,
            start_parameter_services=False,
            use_global_arguments=False,
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._heard: set[str] = set()
        self._worked: set[str] = set()  # processes that were ready once
        self._up: set[str] = set()  # and those that are now
        self._waiting_since = 0.0  # while not all of them are
        self._ascents = Ascents(self.node, graph.nodes, lambda name: name in self._heard)
        self._folder = tempfile.TemporaryDirectory(prefix="vla_rl_")
        self._children = self._make_children()

    def _make_children(self) -> dict[str, Child]:
        parameters = Path(self._folder.name) / "parameters.yaml"
        parameters.write_text(self.graph.parameters())
        environment = {**self.graph.variables(), **ROS_FORMAT}
        return {
            p.name: Child(p.name, self.graph.command(p, parameters), environment, self.console.line)
            for p in self.graph.processes
        }

    @property
    def seconds(self) -> float:
        """Time since the command [s]."""
        return time.monotonic() - self._began

    @property
    def ready(self) -> bool:
        """Whether every node is ready now."""
        return self._ascents.all_ready

    def active(self, name: str) -> bool:
        """Whether a node is active, or, without lifecycle, at work."""
        return self._ascents.ready(name)

    def pid(self, name: str) -> int:
        """The process id of a process, or of the one in which a node lives."""
        return self._children[self.graph.process(name).name].pid

    def start(self) -> None:
        """Start every process.

        Raises:
            RuntimeError: nodes of these names run already in this domain and namespace.
        """
        self._refuse_doubles()
        for node in self.graph.nodes:
            if not node.lifecycle:
                self._await_first(node.name, node.ready)
        self._await_first_chunk()
        for process in self.graph.processes:
            self._launch(process)

    def poll(self, timeout_s: float = _TICK_S) -> bool:
        """Listen, drive and look after everything once; False when the graph has to stop: see `progress.failure`."""
        self._executor.spin_once(timeout_sec=timeout_s)
        self._ascents.tick()
        self._note_readiness()
        for process in self.graph.processes:
            status = self._children[process.name].status
            if status is not None and not self.progress.failure:
                self._ended(process, status)
        self._note_refusals()
        return not self.progress.failure

    def run(self, until: Callable[[], bool]) -> Progress:
        """Start, look after everything until `until()` or a failure, and stop."""
        try:
            self.start()
            while not until() and self.poll():
                pass
        finally:
            self.stop()
        return self.progress

    def stop(self) -> None:
        """Hold the arm and end every process, the robot last; within `graph.stop_s`, whatever they do."""
        began = time.monotonic()
        deadline = began + self.graph.stop_s
        roots = {p.name for p in self.graph.processes if not any(n.after for n in p.nodes)}
        self._deactivate(min(deadline, time.monotonic() + _HOLD_S))
        self._end([c for name, c in self._children.items() if name not in roots], min(deadline, began + _OTHERS_S))
        self._end([c for name, c in self._children.items() if name in roots], deadline)
        for child in self._children.values():
            if child.starts:
                self.progress.exits[child.name] = child.status or 0
        self._executor.shutdown(timeout_sec=0.1)
        self.node.destroy_node()
        self._context.try_shutdown()
        self._folder.cleanup()
        self._claim.close()

    def _deactivate(self, deadline: float) -> None:
        """Let the nodes that are active deactivate, in the graph's stopping order, control first."""
        futures = [self._ascents.by_name[n.name].deactivate() for n in self.graph.nodes if n.lifecycle]
        while any(f is not None and not f.done() for f in futures) and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=_TICK_S)

    @staticmethod
    def _end(children: Iterable[Child], deadline: float) -> None:
        """SIGTERM, and SIGKILL for the group of what is left at the deadline."""
        for child in children:
            child.signal(signal.SIGTERM)
        while any(c.status is None for c in children) and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in children:
            child.kill_group()
            child.said_all()

    def _await_first(self, name: str, topic: str) -> None:
        """Count a node as ready from the first message on its topic on."""

        def heard(_: JointState) -> None:
            self._heard.add(name)
            self._executor.create_task(self.node.destroy_subscription, subscription)

        subscription = self.node.create_subscription(JointState, topic, heard, _LISTEN)

    def _await_first_chunk(self) -> None:
        """Tell when the policy first moves the arm."""

        def heard(message: JointState) -> None:
            step = dict(zip(message.name, message.position, strict=False))
            if step.get("source") == Source.POLICY and self.progress.first_chunk_s is None:
                self.progress.first_chunk_s = self.seconds
                self.console.say(f"the arm executes its first chunk, {self.seconds:.1f} s after the command")
                self._executor.create_task(self.node.destroy_subscription, subscription)

        subscription = self.node.create_subscription(JointState, "control/step", heard, _LISTEN)

    def _refuse_doubles(self) -> None:
        """Raise RuntimeError where the graph, or another with its names, runs already, on whatever host."""
        doubles = running(self.graph, self.node, lambda: self._executor.spin_once(timeout_sec=_TICK_S))
        if doubles:
            raise RuntimeError(
                f"{', '.join(doubles)} already run in this ROS domain: stop them, or give another --namespace or "
                "ROS_DOMAIN_ID"
            )

    def _note_readiness(self) -> None:
        for process in self.graph.processes:
            if process.name not in self._up and all(self._ascents.ready(n.name) for n in process.nodes):
                self._up.add(process.name)
                self._worked.add(process.name)
                self.console.say(f"{process.name} is ready, {self.seconds:.1f} s after the command")
        if self.ready:
            self._waiting_since = 0.0
            self.progress.ready_s = self.progress.ready_s or self.seconds
        elif not self._waiting_since:
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > self._patience_s:
            late = [n.name for n in self.graph.nodes if not self._ascents.ready(n.name)]
            self.progress.failure = f"not ready after {self._patience_s:g} s: {', '.join(late)}"

    def _ended(self, process: ProcessSpec, status: int) -> None:
        """A process has ended by itself: start it again if it ever worked, and not too often."""
        self._children[process.name].said_all()
        how, reason = _how(status), self.console.reason(process.name)
        if process.name not in self._worked:
            self.progress.failure = f"{process.name}: {reason or how}"
        elif self.progress.restarts[process.name] == self._restarts:
            self.progress.failure = f"{process.name} {how}, after {self._restarts} restarts: {reason}"
        else:
            self.progress.restarts[process.name] += 1
            count = self.progress.restarts[process.name]
            self.console.say(f"{process.name} {how}; the arm holds; restart {count} of {self._restarts}")
            self._begin_again(process)

    def _begin_again(self, process: ProcessSpec) -> None:
        child = self._children[process.name]
        child.kill_group()
        self._up.discard(process.name)
        for node in process.nodes:
            if node.lifecycle:
                self._ascents.by_name[node.name].restart()
            else:
                self._heard.discard(node.name)
                self._await_first(node.name, node.ready)
        self._launch(process)

    def _launch(self, process: ProcessSpec) -> None:
        with self._around(process.name):
            self._children[process.name].start()

    def _note_refusals(self) -> None:
        for name, ascent in self._ascents.by_name.items():
            if ascent.refused and not self.progress.failure:
                self._children[self.graph.process(name).name].said_all(0.3)
                reason = self.console.reason(name) or f"refuses to {ascent.refused} and does not say why"
                self.progress.failure = f"{name}: {reason}"


def _how(status: int) -> str:
    """How a process ended, for people."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
