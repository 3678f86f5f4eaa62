"""CorrectedSession: a script in an operator's place at a running graph in simulation, episode after episode.

::

    prepare -> episode/start -> resume -> watch `progress` -> take over ... hand back ... -> success or failure -> pause
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from std_srvs.srv import SetBool

from vla_rl.hil.scripted import OperatorConfig, ScriptedOperator
from vla_rl.ros.measure.pace import Pace
from vla_rl.ros.measure.stage import Stage
from vla_rl.ros.measure.watch import Status


def leader_parameters(config: OperatorConfig) -> list[str]:
    """Rules for `correct_graph`: the hand of this operator is the robot's scripted leader.

    Raises:
        ValueError: the operator is to have a trembling hand, which the leader has not.
    """
    if config.noise:
        raise ValueError(f"an operator at a graph has a steady hand, got noise={config.noise:g}")
    return [f"robot.leader={config.skill}", f"robot.leader_pace={config.pace}", "hil.device=leader"]


@dataclass(frozen=True)
class Played:
    """One episode.

    Attributes:
        success: whether the task was done.
        takeovers: how often the operator took the arm.
        version: of the policy when it began; 0 for the one that the graph started with.
    """

    success: bool
    takeovers: int
    version: int


class CorrectedSession:
    """See the module.

    Args:
        stage: a graph with hil's device `leader` and, to be learned from, a recorder.
        config: patience; `skill`, `pace` and `noise` are the leader's, see `leader_parameters`.

    Attributes:
        pace: whether machine and policy kept up with real time.
    """

    def __init__(self, stage: Stage, config: OperatorConfig) -> None:
        self._stage, self._watch = stage, stage.watch
        self._operator = ScriptedOperator(config, 1.0 / stage.watch.spec.rate)
        self.pace = Pace(stage.watch.spec.rate)

    def play(self, task: str, seed: int) -> Played:
        """One episode from its preparation to its mark.

        Raises:
            RuntimeError: the graph failed, or refuses what is asked; the message names who.
            TimeoutError: it went silent.
        """
        begun = self._stage.prepare_episode(task, seed)
        version = self._version()
        self._watch.trigger("episode/start")
        self._watch.trigger("control/resume")
        self._operator.begin()
        takeovers = 0
        for last in self._stage.rest_of(begun):
            takeovers += self._decide(last)
        success = bool(last.values["success"])
        self._watch.trigger(f"episode/{'success' if success else 'failure'}")
        self._watch.trigger("control/pause")
        self.pace.add(self._watch.heard, begun.stamp_ns, last.received_ns)
        return Played(success, takeovers, version)

    def _version(self) -> int:
        told = self._watch.figure("policy", "version")
        return 0 if math.isnan(told) else int(told)

    def _decide(self, status: Status) -> bool:
        """One more look; whether the operator has taken over just now."""
        if status.ended:
            return False
        self._operator.watch(status.values["progress"])
        edge = self._operator.edge
        if not edge:
            return False
        answer = self._watch.call(SetBool, "control/take_over", SetBool.Request(data=edge == "take_over"))
        if not answer.success:
            raise RuntimeError(f"control refused to {edge.replace('_', ' ')}: {answer.message}")
        return edge == "take_over"
