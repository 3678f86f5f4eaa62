"""Injector: stops, kills and cuts off real nodes of a graph while its arm is under way."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import numpy as np

from vla_rl import build
from vla_rl.robot import arm_spec
from vla_rl.ros.bringup.options import sim_graph
from vla_rl.ros.measure.netns import FarSide
from vla_rl.ros.measure.pace import lateness_ms
from vla_rl.ros.measure.stage import Stage
from vla_rl.ros.measure.stalls import Fault, Verdict, judge
from vla_rl.types import Source

RECOVERY_S = 120.0  # a killed policy loads its libraries and its weights again
DURATION_S = (0.8, 2.0)  # long enough that a chunk ends meanwhile
WITHIN_S = 2.5  # of the first motion of an episode
_SEEDS = 2_000_000  # scenes that neither collection nor evaluation uses
_MOVED = 1e-4  # [rad] between two commands: the arm is under way


class Injector:
    """A graph under fire, policy and steering in processes of their own.

    Args:
        policy: a shipped policy's name or a checkpoint folder.
        seed: of the moments.
        far: name of the node that lives on the far side of a cable, "" for none.
        logs: folder for the nodes' logs.

    Attributes:
        false_holds: times that the arm was held although nothing was done to anybody.
        periods: control periods in which nothing was done to anybody.
        added_ms: what the graph adds to a command: from when its period began to its arrival in another process [ms].
    """

    def __init__(self, policy: str = "tabletop", seed: int = 0, far: str = "", logs: str = "") -> None:
        self._far, self._side = far, FarSide() if far else None
        self._rng = np.random.default_rng(seed)
        self._tasks, self._episodes = build.task_names(), 0
        self.false_holds = self.periods = 0
        self.added_ms: list[float] = []
        graph = sim_graph({"policy": policy, "apart": "true"})
        self.stage = Stage(graph, arm_spec("so101"), logs, restarts=10_000, around=self._around)

    def _around(self, process: str) -> AbstractContextManager[object]:
        return self._side.inside() if self._side and process == self._far else nullcontext()

    def inject(self, node: str, how: str) -> Verdict:
        """One fault, `how` stop, kill or cut, at a random moment of a new episode; returns what came of it.

        Raises:
            TimeoutError: the arm did not get under way, or did not go on after the fault.
        """
        stage, task = self.stage, self._tasks[self._episodes % len(self._tasks)]
        stage.new_episode(task, _SEEDS + self._episodes)
        self._episodes += 1
        stage.until(self._moves, RECOVERY_S, "the arm moves")
        stage.wait(self._rng.uniform(0.0, WITHIN_S))
        stage.until(lambda: self._acts(5), RECOVERY_S, "the policy acts")
        self._count()
        fault = self._do(node, how, self._rng.uniform(*DURATION_S))
        stage.until(lambda: self._acts(10, fault.ended_ns), RECOVERY_S, f"going on after the {how} of {node}")
        heard = stage.watch.heard
        return judge(fault, list(heard.ticks), list(heard.moves), dict(heard.spans_ns), stage.watch.spec)

    def _do(self, node: str, how: str, duration_s: float) -> Fault:
        pid, begun = self.stage.supervisor.pid(node), time.time_ns()
        if how == "cut":
            assert self._side is not None, "a cut needs a far side"
            self._side.pull()
            self.stage.wait(duration_s)
            self._side.plug()
        elif how == "kill":
            os.kill(pid, signal.SIGKILL)
            self.stage.wait(duration_s)
        else:
            os.kill(pid, signal.SIGSTOP)
            try:
                self.stage.wait(duration_s)
            finally:
                os.kill(pid, signal.SIGCONT)
        return Fault(node, how, begun, time.time_ns())

    def _acts(self, periods: int, since_ns: int = 0) -> bool:
        """Whether the last so many periods were all the policy's."""
        last = self.stage.watch.heard.ticks[-periods:]
        return len(last) == periods and all(t.source is Source.POLICY and t.sent_ns > since_ns for t in last)

    def _moves(self) -> bool:
        last = self.stage.watch.heard.ticks[-3:]
        return self._acts(3) and float(np.ptp([t.executed for t in last], axis=0).max()) > _MOVED

    def _count(self) -> None:
        """Count the undisturbed part of an episode."""
        heard = self.stage.watch.heard
        sources = [t.source for t in heard.ticks]
        acted = sources[sources.index(Source.POLICY) :]
        self.periods += len(acted)
        self.false_holds += sum(a is Source.POLICY and b is Source.HOLD for a, b in pairwise(acted))
        commands = list(heard.commands)  # more come while they are counted
        sent, received = (np.array([getattr(c, k) for c in commands]) for k in ("sent_ns", "received_ns"))
        late = lateness_ms(sent, 1e9 / self.stage.watch.spec.rate) + (received - sent) / 1e6
        self.added_ms += late.tolist()

    def close(self) -> None:
        """Stop the graph."""
        self.stage.close()
        if self._side is not None:
            self._side.close()
