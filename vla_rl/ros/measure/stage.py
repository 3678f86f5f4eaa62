"""Stage: a graph that is up with a listener beside it, for evaluation, fault injection and benches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from vla_rl.ros import dds
from vla_rl.ros.bringup.console import Console
from vla_rl.ros.bringup.graph import Graph
from vla_rl.ros.bringup.supervisor import Supervisor
from vla_rl.ros.measure.watch import Status, Watch
from vla_rl.types import RobotSpec

START_S = 300.0  # a loaded machine loads libraries slowly
RESET_S = 120.0  # a loaded machine compiles a world and thinks slowly
SILENCE_S = 5.0  # without a word of the robot the graph counts as dead
FRESH = 3  # periods after a reset until a chunk surely answers the new scene and the new instruction


class Stage:
    """A graph of nodes, started, watched and stopped from this process; everything from its main thread.

    Args:
        graph: what to run, in simulation.
        spec: the robot.
        logs: folder for the nodes' logs; "" keeps none.
        restarts: how often a process that dies is started again.
        around: gives for a process's name a context in which it is started.

    Raises:
        RuntimeError: a node refuses or dies; the message says which and why.
        TimeoutError: it is not ready in time.

    Attributes:
        watch: the listener.
        supervisor: what runs the processes.
    """

    def __init__(
        self,
        graph: Graph,
        spec: RobotSpec,
        logs: str = "",
        restarts: int = 3,
        around: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        dds.use_profile()
        names = [n.name for n in graph.nodes] + [p.name for p in graph.processes]
        self._console = Console(names, _nowhere(), logs)
        self.supervisor = Supervisor(graph, self._console, START_S, restarts=restarts, around=around)
        self.watch = Watch(spec, graph.namespace)
        try:
            self.supervisor.start()
            self.until(lambda: self.supervisor.ready, START_S, "every node is ready")
        except BaseException:
            self.close()
            raise

    def new_episode(self, task: str, seed: int, variant: int = -1) -> Status:
        """Prepare an episode, then let the policy act; returns the scene's first status."""
        begun = self.prepare_episode(task, seed, variant)
        self.watch.trigger("control/resume")
        return begun

    def prepare_episode(self, task: str, seed: int, variant: int = -1) -> Status:
        """A new scene with the arm held, and a policy that has seen it; returns the scene's first status."""
        watch, before = self.watch, self.watch.status
        watch.trigger("control/pause")
        watch.set_parameters("robot", {"task": task, "seed": seed, "variant": variant})
        watch.clear()
        seen = before.values["episode"] if before else -1.0
        watch.trigger("sim/reset", RESET_S)
        self.until(lambda: watch.status is not None and watch.status.values["episode"] > seen, RESET_S, "a reset")
        begun = next(s for s in watch.heard.statuses if s.values["episode"] > seen)
        fresh_ns = begun.stamp_ns + round(FRESH * 1e9 / watch.spec.rate)
        self.until(lambda: max(watch.heard.spans_ns, default=0) > fresh_ns, RESET_S, "a chunk for the new scene")
        return begun

    def rest_of(self, begun: Status) -> Iterator[Status]:
        """What the simulation says from now on in the episode that has begun so; the last one is its end.

        Raises:
            RuntimeError: the graph failed; the message names the node.
            TimeoutError: it went silent.
        """
        seen, heard_at = len(self.watch.heard.statuses), time.monotonic()
        while True:
            self.poll()
            fresh = self.watch.heard.statuses[seen:]
            for status in fresh:
                if status.values["episode"] == begun.values["episode"]:
                    yield status
                    if status.ended:
                        return
            seen += len(fresh)
            heard_at = time.monotonic() if fresh else heard_at
            if time.monotonic() - heard_at > SILENCE_S:
                raise TimeoutError(f"the robot said nothing for {SILENCE_S:g} s, {seen} periods after the reset")

    def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Look after the graph until a condition holds.

        Raises:
            RuntimeError: the graph failed.
            TimeoutError: the condition, named by `what`, did not come to hold.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            self.poll()
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {timeout_s:g} s")

    def wait(self, seconds: float) -> None:
        """Look after the graph for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll()

    def poll(self) -> None:
        """Look after the graph once.

        Raises:
            RuntimeError: it failed.
        """
        if not self.supervisor.poll(0.01):
            raise RuntimeError(self.supervisor.progress.failure)

    def close(self) -> None:
        """Stop the graph with the arm held."""
        self.watch.close()
        self.supervisor.stop()
        self._console.close()


def _nowhere() -> TextIO:
    return open(os.devnull, "w")
