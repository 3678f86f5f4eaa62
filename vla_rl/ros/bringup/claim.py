"""Each node once a namespace: claims on this host while they run, and a look at who answers in the ROS domain."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from lifecycle_msgs.srv import GetState
from rclpy.node import Node

from vla_rl.ros.bringup.graph import Graph
from vla_rl.ros.bringup.lifecycle import Question

_LOOK_S = 0.3  # for nodes that run already to be discovered
_ANSWER_S = 1.5  # for one that was discovered to prove that it is alive


class Claim:
    """Holds a lock file for each of a graph's nodes while it runs; the kernel lets go of them whatever happens.

    Graphs of other nodes run beside it: a recorder beside the robot that it records.

    Args:
        graph: to run.
        domain: its ROS domain.

    Raises:
        RuntimeError: another supervisor on this host holds one.
    """

    def __init__(self, graph: Graph, domain: int) -> None:
        folder = Path(tempfile.gettempdir()) / f"vla_rl_{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._files = ExitStack()
        for node in sorted(node.name for node in graph.nodes):
            name = f"domain_{domain}_{graph.namespace.replace('/', '-')}_{node}.lock"
            file = self._files.enter_context((folder / name).open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                where = f"namespace /{graph.namespace} of ROS domain {domain}"
                raise RuntimeError(
                    f"a graph runs already in {where}, with {node}: stop it, or give another --namespace or "
                    "ROS_DOMAIN_ID"
                ) from None

    def close(self) -> None:
        """Let go."""
        self._files.close()


def running(graph: Graph, node: Node, spin: Callable[[], None]) -> list[str]:
    """The graph's lifecycle nodes that somebody, on any host, runs already.

    A process that was killed stays discovered for a while; so each must also answer.

    Args:
        graph: whose names and namespace count.
        node: on which to look.
        spin: lets `node` hear for a moment.
    """
    names = [n.name for n in graph.nodes if n.lifecycle]
    _wait(spin, _LOOK_S, lambda: bool(_discovered(graph, node).intersection(names)))
    suspects = [name for name in names if name in _discovered(graph, node)]
    questions = {name: Question(node, GetState, f"{name}/get_state") for name in suspects}
    alive: list[str] = []

    def ask() -> bool:
        for name, question in questions.items():
            if question.reachable and not question.open and name not in alive:
                question.ask(GetState.Request())
            if question.answer() is not None:
                alive.append(name)
        return len(alive) == len(questions)

    _wait(spin, _ANSWER_S, ask)
    for question in questions.values():
        question.close()
    return [graph.full_name(name) for name in alive]


def _discovered(graph: Graph, node: Node) -> set[str]:
    """Names in the graph's namespace."""
    space = f"/{graph.namespace}"
    return {name for name, where in node.get_node_names_and_namespaces() if where == space}


def _wait(spin: Callable[[], None], seconds: float, enough: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not enough() and time.monotonic() < end:
        spin()
