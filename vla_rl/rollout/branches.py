"""Branches: ways on from saved moments, each to its end, in lock step, so that a policy answers them in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.draw import Drawer, Question
from vla_rl.rollout.world import Frame, Saved, World


@dataclass(frozen=True, eq=False)
class Start:
    """Where a branch begins.

    Attributes:
        task: which world.
        saved: the moment.
        frames: what is known at that moment, oldest first.
        chunk: what is executed first, (H, A).
        seeds: of the noise of everything after it; branches with equal ones go on with equal noise.
    """

    task: str
    saved: Saved
    frames: tuple[Frame, ...]
    chunk: NDArray[np.float32]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Ending:
    """What a branch came to: whether the task was solved, and after how many steps it ended."""

    success: bool
    steps: int


@dataclass(eq=False)
class _Branch:
    start: Start
    world: World
    frames: deque[Frame]
    chunk: NDArray[np.float32]
    decisions: int = 0
    steps: int = 0

    @property
    def question(self) -> Question:
        """What the policy is asked next: one chunk, its first sample."""
        seed = np.random.SeedSequence([*self.start.seeds, self.decisions]).generate_state(1)[0]
        return Question(tuple(self.frames), 1, int(seed))


@dataclass(eq=False)
class Branches:
    """Plays branches to their ends: the given chunk first, then the policy's first sample, decision by decision.

    Attributes:
        make_world: a task's name to its world; worlds are kept and used again.
        drawer: the policy.
        period: actions of a chunk that are executed.
        room: branches under way at once.
    """

    make_world: Callable[[str], World]
    drawer: Drawer
    period: int
    room: int = 16
    _idle: list[World] = field(default_factory=list)

    def play(self, starts: Sequence[Start]) -> list[Ending]:
        """The ending of each."""
        endings: dict[int, Ending] = {}
        waiting, running = deque(enumerate(starts)), dict[int, _Branch]()
        while waiting or running:
            while waiting and len(running) < self.room:
                number, start = waiting.popleft()
                running[number] = self._begin(start)
            ended = {n: ending for n, branch in running.items() if (ending := self._advance(branch)) is not None}
            for number in ended:
                self._idle.append(running.pop(number).world)
            endings |= ended
            self._plan(list(running.values()))
        return [endings[number] for number in range(len(starts))]

    def close(self) -> None:
        """Close every world."""
        for world in self._idle:
            world.close()
        self._idle.clear()

    def _begin(self, start: Start) -> _Branch:
        world = self._take_world(start.task)
        world.restore(start.saved)
        return _Branch(start, world, deque(start.frames, self.drawer.frames), start.chunk)

    def _take_world(self, task: str) -> World:
        for place, world in enumerate(self._idle):
            if world.name == task:
                return self._idle.pop(place)
        if len(self._idle) >= self.room:
            self._idle.pop(0).close()
        return self.make_world(task)

    def _advance(self, branch: _Branch) -> Ending | None:
        """Execute a period of the chunk; only the frames that the policy will see are rendered."""
        for place, action in enumerate(branch.chunk[: self.period]):
            if not np.isfinite(action).all():
                return Ending(False, branch.steps)
            look = place >= self.period - self.drawer.frames
            after = branch.world.step(action, look)
            branch.steps += 1
            if after.success or after.terminated or after.truncated:
                return Ending(after.success, branch.steps)
            if look:
                branch.frames.append(after.frame)
        return None

    def _plan(self, branches: Sequence[_Branch]) -> None:
        """Each branch's next chunk."""
        if not branches:
            return
        for branch, drawn in zip(branches, self.drawer.draw([b.question for b in branches]), strict=True):
            branch.chunk = drawn.chunks[0]
            branch.decisions += 1
