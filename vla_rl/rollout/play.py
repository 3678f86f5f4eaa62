"""Player: seeded episodes in several worlds of one process, in lock step, so that a policy answers them in one batch.

::

    tick        0   1   2  ...  7   8   9  ...
    slot 0      |-- episode a ---------------- ...
    slot 1      |-- episode b -----|               b has ended
    slot 1                          |-- c ---- ... the next one begins at a multiple of the actor's period

An episode is a pure function of its job: worlds, experts and sampling noise are seeded by it alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.candidates import Draw, stack
from vla_rl.rollout.world import Columns, Frame, Transition, World
from vla_rl.types import Outcome, Source, Termination


@dataclass(frozen=True)
class Job:
    """One episode to play.

    Attributes:
        index: place in the order of results.
        task: which world.
        seed: the scene.
        choice: which of the scene's objects is named (an index into the scene's seeded order).
        keep_columns: give the episode's columns back.
        film: give the first camera's frames back.
    """

    index: int
    task: str
    seed: int
    choice: int = 0
    keep_columns: bool = False
    film: bool = False


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an actor wants done now.

    Attributes:
        action: to execute, (A,) float32.
        clean: what the policy or expert itself proposes, (A,), before any execution noise; None where none does.
        source: who acts.
        chunk: ordinal of the chunk in the episode, -1 where there is none.
        value: what the critic said of it, 0 where there is no critic.
        selected: index of the selected candidate, -1 where there is none.
        candidates: all chunks, (K, H, A) float32, at the step at which they were drawn; None at all others.
        values: what an ensemble of E critics said of them, (E, K) float32, None where there is no critic.
        noise_seed: what they were drawn with.
        abstained: why the critic was not followed at that step, "" where it was.
        note: what of this step belongs into the episode's summary, JSON-ready; None for nothing.
        look: whether whoever acts will see the images of the frame after it; others need not be drawn.
    """

    action: NDArray[np.float32]
    clean: NDArray[np.float32] | None
    source: Source
    chunk: int = -1
    value: float = 0.0
    selected: int = -1
    candidates: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None
    noise_seed: int = 0
    abstained: str = ""
    note: Mapping[str, Any] | None = None
    look: bool = True


@dataclass(frozen=True, eq=False)
class Rollout:
    """A finished episode: its job, what it came to, and what the job asked to keep.

    Attributes:
        job: what was asked.
        meta: JSON-ready summary : task, seed, variant, instruction, target, touched, outcome, ....
        columns: the schema's columns, each (T, ...), or empty.
        film: (T, H, W, 3) uint8 of the first camera, or None.
        candidates: all chunks that were drawn, as `record.candidates.stack` gives them, and at which of them the critic
            was not followed, `abstained` (M,) bool; empty where none were.
    """

    job: Job
    meta: dict[str, Any]
    columns: Columns
    film: NDArray[np.uint8] | None = None
    candidates: Columns = field(default_factory=dict)


class Actor(Protocol):
    """Whoever acts: a script or a policy, for up to `slots` episodes at once."""

    slots: int
    period: int

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Forget the slot's last episode and get ready for this one; `seed` covers scene and choice."""

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """A proposal for each slot that is under way."""


@dataclass(eq=False)
class _Choices:
    """What was chosen among several candidates in an episode, counted."""

    made: int = 0
    steered: int = 0
    values: list[float] = field(default_factory=list)
    abstained: Counter[str] = field(default_factory=Counter)

    def add(self, proposal: Proposal) -> None:
        """Count a decision."""
        if proposal.candidates is None or len(proposal.candidates) < 2:
            return
        self.made += 1
        self.steered += proposal.selected > 0
        if proposal.values is not None:
            self.values.append(proposal.value)
        if proposal.abstained:
            self.abstained[proposal.abstained] += 1

    def summary(self) -> dict[str, Any]:
        """JSON-ready; empty where there was nothing to choose."""
        if not self.made:
            return {}
        value = float(np.mean(self.values)) if self.values else None
        return {"made": self.made, "steered": self.steered, "abstained": dict(self.abstained), "value": value}


@dataclass(eq=False)
class _Running:
    """An episode under way."""

    job: Job
    world: World
    frame: Frame
    columns: list[Columns] = field(default_factory=list)
    film: list[NDArray[np.uint8]] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    abstained: list[bool] = field(default_factory=list)
    choices: _Choices = field(default_factory=_Choices)
    notes: list[Mapping[str, Any]] = field(default_factory=list)
    steps: int = 0
    reward: float = 0.0
    success_at: int = -1
    digest: Any = field(default_factory=hashlib.sha256)

    def record(self, proposal: Proposal, after: Transition) -> None:
        """Count one step, and keep what the job asks for."""
        self.reward += after.reward
        self.steps += 1
        self.choices.add(proposal)
        self.notes += [proposal.note] if proposal.note is not None else []
        self.digest.update(after.executed.tobytes())
        if after.success and self.success_at < 0:
            self.success_at = self.steps
        if self.job.keep_columns:
            stamp = round((self.steps - 1) * 1e9 / self.world.fps)
            self.columns.append(self.frame.columns | _labels(self.frame) | _step_columns(proposal, after, stamp))
            if proposal.candidates is not None:
                chosen, seed = max(proposal.selected, 0), proposal.noise_seed
                self.draws.append(Draw(self.steps - 1, proposal.candidates, proposal.values, chosen, seed))
                self.abstained.append(bool(proposal.abstained))
        if self.job.film:
            self._shoot(self.frame)
        self.frame = after.frame

    def _shoot(self, frame: Frame) -> None:
        cameras = [k for k, f in self.world.features.items() if f["dtype"] == "image"]
        if cameras:
            self.film.append(frame.columns[cameras[0]])

    def finish(self, termination: Termination, invalid: str = "") -> Rollout:
        """The finished episode; an episode is a success where the success key was true at any of its steps."""
        if self.job.film:
            self._shoot(self.frame)
        success = self.success_at > 0 and not invalid
        info = self.frame.info
        meta = {
            "task": self.job.task,
            "seed": self.job.seed,
            "choice": self.job.choice,
            "variant": self.world.variant(self.job.seed, self.job.choice),
            "instruction": self.frame.instruction,
            "target": str(info.get("target", "")),
            "touched": str(info.get("touched", "")),
            "outcome": str(Outcome.SUCCESS if success else Outcome.FAILURE),
            "termination": str(termination),
            "steps": self.steps,
            "return": self.reward,
            "cycle_time_s": self.success_at / self.world.fps if success else None,
            "invalid": invalid,
            "choices": self.choices.summary(),
            "notes": self.notes,
            "actions": self.digest.hexdigest()[:16],
            "fps": self.world.fps,
            "robot_type": self.world.robot,
            "names": self.world.names,
            "units": self.world.units,
            "action_spec": self.world.action.to_dict(),
        }
        columns = {k: np.stack([step[k] for step in self.columns]) for k in self.columns[0]} if self.columns else {}
        film = np.stack(self.film) if self.film else None
        candidates = stack(self.draws)
        if candidates:
            candidates["abstained"] = np.array(self.abstained)
        return Rollout(self.job, meta, columns, film, candidates)


class Player:
    """Plays jobs, as many at once as the actor has slots.

    Args:
        make_world: a task's name to its world; worlds are kept and used again.
        actor: who acts.
    """

    def __init__(self, make_world: Callable[[str], World], actor: Actor) -> None:
        self.actor = actor
        self._make_world = make_world
        self._waiting: deque[Job] = deque()
        self._running: dict[int, _Running] = {}
        self._idle: list[World] = []
        self._tick = 0

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything."""
        return bool(self._waiting or self._running)

    def add(self, job: Job) -> None:
        """Queue a job; it begins as soon as a slot is free."""
        self._waiting.append(job)

    def tick(self) -> list[Rollout]:
        """One control period of every running episode; returns the episodes that ended in it."""
        if not self._running:
            self._tick = 0
        if self._tick % self.actor.period == 0:
            self._begin_waiting()
        self._tick += 1
        proposals = self.actor.act({slot: episode.frame for slot, episode in self._running.items()})
        ended = {slot: self._advance(self._running[slot], proposal) for slot, proposal in proposals.items()}
        done = {slot: rollout for slot, rollout in ended.items() if rollout is not None}
        for slot in done:
            self._idle.append(self._running.pop(slot).world)
        return list(done.values())

    def close(self) -> None:
        """Close every world, and what the actor keeps open."""
        for world in [*self._idle, *(episode.world for episode in self._running.values())]:
            world.close()
        if hasattr(self.actor, "close"):
            self.actor.close()

    def _begin_waiting(self) -> None:
        for slot in sorted(set(range(self.actor.slots)) - set(self._running)):
            if not self._waiting:
                return
            job = self._waiting.popleft()
            world = self._take_world(job.task)
            self._running[slot] = _Running(job, world, world.reset(job.seed, job.choice))
            self.actor.begin(slot, world, job, episode_seed(job))

    def _take_world(self, task: str) -> World:
        for i, world in enumerate(self._idle):
            if world.name == task:
                return self._idle.pop(i)
        if len(self._idle) >= 2 * self.actor.slots:
            self._idle.pop(0).close()
        return self._make_world(task)

    @staticmethod
    def _advance(episode: _Running, proposal: Proposal) -> Rollout | None:
        if not np.isfinite(proposal.action).all():
            return episode.finish(Termination.FAULT, "the policy gave an action that is not finite")
        after = episode.world.step(proposal.action, proposal.look or episode.job.keep_columns or episode.job.film)
        episode.record(proposal, after)
        if after.terminated:
            return episode.finish(Termination.SUCCESS if after.success else Termination.FAILURE)
        return episode.finish(Termination.TIME_LIMIT) if after.truncated else None


def episode_seed(job: Job) -> int:
    """One number for scene and choice: what experts, execution noise and sampling noise are seeded by."""
    return int(np.random.SeedSequence([job.seed, job.choice]).generate_state(1)[0])


def _labels(frame: Frame) -> Columns:
    labels: Mapping[str, Any] = frame.info.get("labels", {})
    return {k: np.asarray(v, dtype=np.float32).reshape(-1) for k, v in labels.items()}


def _step_columns(proposal: Proposal, after: Transition, stamp_ns: int) -> Columns:
    """One step's columns beside the observation (the data schema); `action` is what was executed."""
    known = proposal.clean is not None
    return {
        "action": after.executed,
        "policy_action": np.asarray(proposal.clean if known else np.zeros_like(after.executed), dtype=np.float32),
        "policy_action_valid": np.array(known),
        "intervention": np.array(proposal.source is Source.HUMAN),
        "next.reward": np.array(after.reward, dtype=np.float32),
        "next.done": np.array(after.terminated),
        "next.truncated": np.array(after.truncated),
        "next.success": np.array(after.success),
        "chunk.index": np.array(proposal.chunk, dtype=np.int64),
        "chunk.value": np.array(proposal.value, dtype=np.float32),
        "chunk.selected": np.array(proposal.selected, dtype=np.int64),
        "stamp_ns": np.array(stamp_ns, dtype=np.int64),
    }
