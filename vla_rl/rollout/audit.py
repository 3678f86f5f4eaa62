"""Audit: at a decision go back and execute EVERY candidate to the end: what choosing really cost, and could have won.

::

    decision   candidate 0 --- the policy's first samples --- end      success, steps
               candidate 1 --- the same noise             --- end      success, steps
               ...
               the episode itself goes on with the chosen one (or the best, see `AuditConfig.follow`)

The rest of every branch is the policy alone, its noise the same for all candidates of a decision: what differs is the
candidate. An ending is one draw of a chance; the best of K endings therefore also counts luck. With two or more
continuations `crossed` picks by one and counts the others: the part of the oracle's gain that is no luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.branches import Branches, Ending, Start
from vla_rl.rollout.learned import ChunkActor
from vla_rl.rollout.play import Job, Proposal
from vla_rl.rollout.world import Frame, Saved, World
from vla_rl.steer.selectors import make_selector

FOLLOW = ("chosen", "oracle")


@dataclass(frozen=True)
class AuditConfig:
    """How thoroughly to look.

    Attributes:
        stride: every how many decisions of an episode all candidates are executed.
        continuations: how often each of them is, with other noise after it, R.
        follow: what the episode itself goes on with after an audited decision: the `chosen` candidate, or the one that
            ended best (`oracle`): its success is then what a critic that looks ahead by simulation would reach.
    """

    stride: int = 2
    continuations: int = 1
    follow: str = "chosen"

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be done."""
        if min(self.stride, self.continuations) < 1:
            raise ValueError("--audit-stride and --continuations must be at least 1")
        if self.follow not in FOLLOW:
            raise ValueError(f"unknown --follow '{self.follow}'; there are: {', '.join(FOLLOW)}")


@dataclass(frozen=True, eq=False)
class _Looked:
    """A decision under audit: its ordinal and step in the episode, what was proposed, and the moment.

    `chunks` are all candidates and, where what is executed is none of them, the blend that is, (K or K + 1, H, A).
    """

    slot: int
    decision: int
    step: int
    proposal: Proposal
    saved: Saved
    chunks: NDArray[np.float32]


@dataclass(eq=False)
class AuditActor:
    """A ChunkActor whose decisions are looked at from all sides; what was found goes into the episode's notes.

    Attributes:
        actor: who acts; its plan must not join overlapping chunks.
        branches: where candidates are executed.
        config: how thoroughly.
    """

    actor: ChunkActor
    branches: Branches
    config: AuditConfig
    _worlds: dict[int, World] = field(default_factory=dict)
    _seeds: dict[int, int] = field(default_factory=dict)
    _steps: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take over the actor's slots and period."""
        self.slots, self.period = self.actor.slots, self.actor.period

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """As the actor begins; and see that the world can be saved.

        Raises:
            ValueError: it can not.
        """
        world.save()
        self._worlds[slot], self._seeds[slot], self._steps[slot] = world, seed, 0
        self.actor.begin(slot, world, job, seed)

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """The actor's proposals, those of audited decisions with what came of all candidates."""
        proposals = dict(self.actor.act(frames))
        looked = [
            _Looked(
                slot,
                proposal.chunk,
                self._steps[slot],
                proposal,
                self._worlds[slot].save(),
                self._chunks(slot, proposal),
            )
            for slot, proposal in proposals.items()
            if proposal.candidates is not None and proposal.chunk % self.config.stride == 0
        ]
        for slot in frames:
            self._steps[slot] += 1
        endings = iter(self.branches.play([start for each in looked for start in self._starts(each)]))
        for each in looked:
            proposals[each.slot] = self._noted(each, [next(endings) for _ in range(self._count(each))])
        return proposals

    def close(self) -> None:
        """Close the branches' worlds."""
        self.branches.close()

    def _chunks(self, slot: int, proposal: Proposal) -> NDArray[np.float32]:
        """Everything that is to be executed at a decision."""
        assert proposal.candidates is not None
        blend = self.actor.blend(slot)
        return proposal.candidates if blend is None else np.concatenate([proposal.candidates, blend[None]])

    def _count(self, looked: _Looked) -> int:
        return len(looked.chunks) * self.config.continuations

    def _starts(self, looked: _Looked) -> list[Start]:
        """Every chunk, continuation by continuation."""
        task, frames = self._worlds[looked.slot].name, self.actor.history(looked.slot)
        seeds = [(self._seeds[looked.slot], looked.decision, r) for r in range(self.config.continuations)]
        return [Start(task, looked.saved, frames, chunk, s) for chunk in looked.chunks for s in seeds]

    def _noted(self, looked: _Looked, endings: Sequence[Ending]) -> Proposal:
        """The proposal with its note; where the oracle is followed, with the best candidate's first action."""
        proposal, repeats = looked.proposal, self.config.continuations
        assert proposal.candidates is not None
        each = [endings[i : i + repeats] for i in range(0, len(endings), repeats)]
        each, blended = each[: len(proposal.candidates)], each[len(proposal.candidates) :]
        note = {
            "decision": looked.decision,
            "step": looked.step,
            "chosen": proposal.selected,
            "medoid": self._medoid(proposal),
            "success": [[ending.success for ending in some] for some in each],
            "steps": [[ending.steps for ending in some] for some in each],
            "blend": [ending.success for ending in blended[0]] if blended else None,
            "values": None if proposal.values is None else np.round(proposal.values, 6).tolist(),
        }
        if self.config.follow == "oracle":
            return self._redirected(proposal, looked.slot, note)
        return replace(proposal, note=note)

    def _redirected(self, proposal: Proposal, slot: int, note: dict[str, Any]) -> Proposal:
        assert proposal.candidates is not None
        best = best_of(np.array(note["success"], float), np.array(note["steps"], float))
        self.actor.redirect(slot, best)
        action = proposal.candidates[best][0]
        return replace(proposal, action=action, clean=action, selected=best, note=note)

    def _medoid(self, proposal: Proposal) -> int:
        assert proposal.candidates is not None
        compared = proposal.candidates[:, : self.period]
        if not np.isfinite(compared).all():
            return 0
        return make_selector("medoid")(compared, None, None, np.random.default_rng(0)).index


def best_of(success: NDArray[np.float64], steps: NDArray[np.float64]) -> int:
    """The candidate (of K) that succeeded most often, among equal ones that which was soonest done; (K, R) both."""
    return int(np.lexsort((steps.mean(1), -success.mean(1)))[0])
