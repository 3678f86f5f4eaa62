"""CorrectedSession: a script in an operator's place at a running graph in simulation, episode after episode.

::

    prepare -> episode/start -> resume -> watch `progress` -> take over ... hand back ... -> success or failure -> pause
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from std_srvs.srv import SetBool

from vla_rl.hil.scripted import OperatorConfig, ScriptedOperator
from vla_rl.ros.measure.pace import Pace
from vla_rl.ros.measure.stage import Stage
from vla_rl.ros.measure.watch import Status

SILENCE_S = 5.0  # without a word of the robot the graph counts as dead


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
        takeovers, last = self._until_end(begun)
        success = bool(last.values["success"])
        self._watch.trigger(f"episode/{'success' if success else 'failure'}")
        self._watch.trigger("control/pause")
        self.pace.add(self._watch.heard, begun.stamp_ns, last.received_ns)
        return Played(success, takeovers, version)

    def _version(self) -> int:
        told = self._watch.figure("policy", "version")
        return int(told) if told == told else 0

    def _until_end(self, begun: Status) -> tuple[int, Status]:
        """Watch, take over and hand back; how often, and the status that is the episode's end."""
        self._operator.begin()
        takeovers, seen, heard_at = 0, len(self._watch.heard.statuses), time.monotonic()
        while True:
            self._stage.poll()
            fresh = self._watch.heard.statuses[seen:]
            for status in fresh:
                if status.values["episode"] != begun.values["episode"]:
                    continue
                if any(status.values[key] for key in ("success", "terminated", "truncated")):
                    return takeovers, status
                takeovers += self._decide(status.values["progress"])
            seen += len(fresh)
            heard_at = time.monotonic() if fresh else heard_at
            if time.monotonic() - heard_at > SILENCE_S:
                raise TimeoutError(f"the robot said nothing for {SILENCE_S:g} s, {seen} periods into an episode")

    def _decide(self, progress: float) -> bool:
        """One more look; whether the operator has taken over just now."""
        self._operator.watch(progress)
        edge = self._operator.edge
        if not edge:
            return False
        answer = self._watch.call(SetBool, "control/take_over", SetBool.Request(data=edge == "take_over"))
        if not answer.success:
            raise RuntimeError(f"control refused to {edge.replace('_', ' ')}: {answer.message}")
        return edge == "take_over"
