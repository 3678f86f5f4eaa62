"""CorrectedActor: a policy under the eyes of an operator who takes the arm, corrects, and hands it back.

::

    slot            policy's chunk | chunk     | chunk     | chunk
    drives          policy         policy | operator       | policy
    action          a  a  a  a  a  a  a  a  h  h  h  h  h  h  a  a       executed
    policy_action   a  a  a  a  a  a  a  a  a  a  a  a  a  a  a  a       goes on while the operator drives

The arm is handed back where the policy has just looked: its first action after a correction never comes from a chunk
that began before the hand-back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.hil.scripted import OperatorConfig, ScriptedOperator
from vla_rl.rollout.actors import ExecutionNoise, noise_scale
from vla_rl.rollout.learned import ChunkActor
from vla_rl.rollout.play import Job, Proposal
from vla_rl.rollout.world import Frame, World
from vla_rl.types import Source

PROGRESS = "progress"  # label of a frame


class Corrector(Protocol):
    """Somebody who knows what to do from where the arm is now."""

    def act(self) -> NDArray[np.float32]:
        """The target for now, (A,), in the data set's units."""


@dataclass(eq=False)
class _Watch:
    """One episode's operator."""

    world: World
    operator: ScriptedOperator
    seed: int
    noise: ExecutionNoise
    corrections: int = 0
    steps: int = 0
    corrector: Corrector | None = None

    def answer(self, frame: Frame, proposal: Proposal) -> Proposal:
        """What is executed: the policy's proposal, or the operator's correction of it."""
        operator, self.steps = self.operator, self.steps + 1
        drives = operator.watch(progress_of(frame, self.world), may_hand_back=proposal.candidates is not None)
        note = proposal.note
        if operator.edge:
            note = {"edge": operator.edge, "step": self.steps - 1, "reason": operator.reason}
        if operator.edge == "take_over":
            self._begin_correction()
        if not drives:
            return replace(proposal, note=note)
        return replace(proposal, action=self._correction(), source=Source.HUMAN, note=note)

    def _begin_correction(self) -> None:
        """A plan from the state of now."""
        config = self.operator.config
        seed = int(np.random.SeedSequence([self.seed, self.corrections]).generate_state(1)[0])
        self.corrector = self.world.expert(clumsy=config.skill == "clumsy", seed=seed, pace=config.pace)
        self.corrections += 1

    def _correction(self) -> NDArray[np.float32]:
        assert self.corrector is not None
        clean = np.asarray(self.corrector.act(), dtype=np.float32)
        allowed = bool(getattr(self.corrector, "may_perturb", True))
        return (clean + self.noise.sample(allowed)).astype(np.float32)


class CorrectedActor:
    """A policy's chunks, corrected; what is proposed and what is executed are both told.

    Args:
        actor: the policy, executed without joining overlapping chunks.
        config: the operator's patience and skill.
    """

    def __init__(self, actor: ChunkActor, config: OperatorConfig) -> None:
        self._actor, self._config = actor, config
        self.slots, self.period = actor.slots, actor.period
        self._watches: dict[int, _Watch] = {}

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """An operator who has seen nothing yet."""
        self._actor.begin(slot, world, job, seed)
        operator = ScriptedOperator(self._config, 1.0 / world.fps)
        noise = ExecutionNoise(noise_scale(world, self._config.noise), 1.0 / world.fps, seed)
        self._watches[slot] = _Watch(world, operator, seed, noise)

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """The policy's proposals, corrected where the operator drives."""
        proposals = self._actor.act(frames)
        return {slot: self._watches[slot].answer(frames[slot], proposals[slot]) for slot in frames}


def progress_of(frame: Frame, world: World) -> float:
    """How far a frame's task has come, in [0, 1].

    Raises:
        ValueError: the environment does not tell.
    """
    labels: Mapping[str, Any] = frame.info.get("labels", {})
    if PROGRESS not in labels:
        raise ValueError(f"'{world.name}' tells no progress (info['labels']['{PROGRESS}']) for an operator to watch")
    return float(np.asarray(labels[PROGRESS]).reshape(-1)[0])
