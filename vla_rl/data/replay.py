"""ReplayBuffer: the newest steps in a ring, every image once and as uint8; transitions are cut when they are drawn.

::

    ring        . . . . . . . . h o . . . . . .      h newest row (head), o oldest: no transition goes from h to o
    row         observation, the action executed in it, its reward, how it ended
    sample      chunk of h actions, n-step reward, next observation n rows on: all inside one segment

The rules are those of `vla_rl.data.transitions`; what is drawn is uniform over the rows that start a transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.cache import FrameCache
from vla_rl.data.lerobot import export
from vla_rl.data.outcomes import endings
from vla_rl.data.transitions import TransitionConfig
from vla_rl.record.store import EpisodeStore

Columns = Mapping[str, NDArray[Any]]
_ROUNDS = 200  # of drawing, until it is clear that there is nothing to draw


@dataclass(frozen=True, eq=False)
class ReplayBatch:
    """B transitions.

    Attributes:
        observation: column to (B, ...); images (B, 3, H, W) uint8, channels last in memory.
        next_observation: the same n steps later; the observation itself where the discount is 0.
        chunk, valid, reward, discount: as in `ChunkBatch`.
        intervention: whether a human drove, (B,) bool.
        index: number of the first row since the buffer was made, (B,) int64.
    """

    observation: dict[str, Tensor]
    next_observation: dict[str, Tensor]
    chunk: Tensor
    valid: Tensor
    reward: Tensor
    discount: Tensor
    intervention: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Transitions without their contents: first row, rewards in them, rows of the segment, next row, discount."""

    rows: NDArray[np.int64]
    steps: NDArray[np.int64]
    left: NDArray[np.int64]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]


class ReplayBuffer:
    """The newest `capacity` rows.

    Args:
        capacity: rows at most; all memory is taken at once.
        config: how transitions are cut (`candidates` has no meaning here).
        observation: one observation, as an example of its columns: images (H, W, 3) uint8, vectors float32.
        action_dim: numbers in an action, A.

    Raises:
        ValueError: not enough room for a single transition.
    """

    def __init__(self, capacity: int, config: TransitionConfig, observation: Columns, action_dim: int) -> None:
        self._span = max(config.n_step, config.window)
        if capacity <= self._span:
            raise ValueError(f"a capacity of {capacity} rows has no room for a transition of {self._span} steps")
        self.capacity, self.config = capacity, config
        example = {name: np.asarray(value) for name, value in observation.items()}
        self._padded = {name: _allocate(capacity + 2, value) for name, value in example.items()}
        self._columns = {name: table[1:-1] for name, table in self._padded.items()}
        self._action = np.zeros((capacity, action_dim), np.float32)
        self._reward = np.zeros(capacity, np.float32)
        self._done, self._over, self._human, self._acted = (np.zeros(capacity, bool) for _ in range(4))
        self._added = 0

    def __len__(self) -> int:
        """Rows held now."""
        return min(self._added, self.capacity)

    @property
    def nbytes(self) -> int:
        """Memory of all observations [bytes]."""
        return sum(table.nbytes for table in self._columns.values())

    def add(
        self,
        observation: Columns,
        action: NDArray[np.float32],
        reward: float,
        *,
        done: bool = False,
        truncated: bool = False,
        intervention: bool = False,
        last: Columns | None = None,
    ) -> None:
        """Add a step.

        Args:
            observation: before the action.
            action: executed, (A,).
            reward: of it.
            done: it led to a terminal; a time limit is none.
            truncated: the episode was cut behind it.
            intervention: a human drove.
            last: the observation behind an episode that was cut: without it the last step can not be learned from.
        """
        self._write(observation, action, reward, done, done or (truncated and last is None), intervention)
        if truncated and not done and last is not None:
            self._write(last, np.zeros_like(action), 0.0, False, True, intervention, acted=False)

    def sample(self, rng: np.random.Generator, batch: int, shift: int = 0) -> ReplayBatch:
        """Draw transitions with replacement.

        Args:
            rng: the only source of chance.
            batch: how many.
            shift: move every image by up to so many pixels each way, edges repeated (DrQ, arXiv:2004.13649).

        Raises:
            ValueError: no row starts a transition.
        """
        drawn = self._draw(rng, batch)
        rows, following = drawn.rows, np.where(drawn.discount == 0.0, drawn.rows, drawn.rows + drawn.steps)
        ahead = np.arange(self.config.window)
        actions = rows[:, None] + np.minimum(ahead, drawn.left[:, None] - 1)
        both = self._observe(np.concatenate([rows, following]) % self.capacity, shift, rng)
        return ReplayBatch(
            observation={name: value[:batch] for name, value in both.items()},
            next_observation={name: value[batch:] for name, value in both.items()},
            chunk=torch.from_numpy(self._action[actions % self.capacity]),
            valid=torch.from_numpy(ahead < drawn.steps[:, None]),
            reward=torch.from_numpy(drawn.reward),
            discount=torch.from_numpy(drawn.discount),
            intervention=torch.from_numpy(self._human[rows % self.capacity]),
            index=torch.from_numpy(rows),
        )

    @classmethod
    def from_cache(cls, cache: FrameCache, config: TransitionConfig, capacity: int = 0) -> ReplayBuffer:
        """A buffer filled from a data set: its images, its state and its actions, all episodes that fit."""
        vectors = {name: values for name, values in cache.columns.items() if name.startswith("observation.")}
        tables: dict[str, NDArray[Any]] = {**cache.images, **vectors}
        first = {name: table[0] for name, table in tables.items()}
        size = capacity or max(len(cache), max(config.n_step, config.window) + 1)
        buffer = cls(size, config, first, cache.columns["action"].shape[1])
        over, human = endings(cache), cache.columns.get("intervention", np.zeros(len(cache), bool))
        rewards = cache.columns.get("next.reward", np.zeros(len(cache), np.float32)).reshape(len(cache))
        for row in range(max(0, len(cache) - size), len(cache)):
            buffer.add(
                {name: table[row] for name, table in tables.items()},
                cache.columns["action"][row],
                float(rewards[row]),
                done=bool(over.done[row]),
                truncated=bool(over.truncated[row]),
                intervention=bool(human.reshape(len(cache))[row]),
            )
        return buffer

    def to_dataset(self, out: str | Path, fps: float, instruction: str, meta: Mapping[str, Any] | None = None) -> Path:
        """Write what is held as a LeRobotDataset v3, `out`/dataset, by way of an episode store, `out`/episodes.

        An episode whose beginning was overwritten starts where it does here; one under way ends where it does, as cut.

        Args:
            out: folder, empty or missing.
            fps: rate [Hz].
            instruction: of all episodes.
            meta: more about every episode, as `EpisodeStore.append` takes it.
        """
        with EpisodeStore(Path(out) / "episodes") as store:
            for rows in self._episodes():
                about = {**(meta or {}), "fps": fps, "instruction": instruction}
                store.append(self._schema(rows), {**about, "outcome": "unknown"})
        return export(Path(out) / "episodes", Path(out) / "dataset")

    def _write(
        self,
        observation: Columns,
        action: NDArray[np.float32],
        reward: float,
        done: bool,
        over: bool,
        intervention: bool,
        acted: bool = True,
    ) -> None:
        place = self._added % self.capacity
        for name, table in self._columns.items():
            table[place] = observation[name]
        self._action[place], self._reward[place] = action, reward
        self._done[place], self._over[place], self._human[place], self._acted[place] = done, over, intervention, acted
        self._added += 1

    def _draw(self, rng: np.random.Generator, batch: int) -> _Drawn:
        """Transitions, uniform over all there are: rows at random, those that start none left out."""
        found: list[NDArray[np.int64]] = []
        need = 1 if self.config.ends == "pad" else self.config.window
        for _ in range(_ROUNDS if len(self) else 0):
            rows = rng.integers(self._added - len(self), self._added, size=2 * batch)
            found.append(rows[self._steps(rows)[0] >= need])
            if sum(map(len, found)) >= batch:
                return self._cut(np.concatenate(found)[:batch])
        raise ValueError(f"the buffer's {len(self)} rows hold no transition of {self.config.window} actions yet")

    def _steps(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """For each row: steps of its transition, rows left of its segment (span + 1 at most), if a terminal ends it."""
        ahead = rows[:, None] + np.arange(self._span + 1)
        place = ahead % self.capacity
        here = ahead < self._added
        joined = ~self._over[place[:, :-1]] & (self._human[place[:, 1:]] == self._human[place[:, :-1]])
        left = 1 + np.logical_and.accumulate(joined & here[:, 1:], axis=1).sum(axis=1)
        ends = self._done[(rows + left - 1) % self.capacity] & (left <= self._span)
        return np.where(ends, left, np.minimum(self._span, left - 1)), left, ends

    def _cut(self, rows: NDArray[np.int64]) -> _Drawn:
        steps, left, ends = self._steps(rows)
        powers = self.config.gamma ** np.arange(self._span)
        inside = np.arange(self._span) < steps[:, None]
        rewards = self._reward[(rows[:, None] + np.arange(self._span)) % self.capacity]
        discount = np.where(ends, 0.0, self.config.gamma ** steps.astype(float))
        total = (rewards * powers * inside).sum(axis=1)
        return _Drawn(rows, steps, left, total.astype(np.float32), discount.astype(np.float32))

    def _observe(self, place: NDArray[np.int64], shift: int, rng: np.random.Generator) -> dict[str, Tensor]:
        found = {}
        for name, table in self._columns.items():
            if table.ndim == 4:
                images = _shifted(self._padded[name], place, shift, rng) if shift else np.take(table, place, axis=0)
                found[name] = torch.from_numpy(images).movedim(-1, 1)
            else:
                found[name] = torch.from_numpy(table[place])
        return found

    def _episodes(self) -> list[NDArray[np.int64]]:
        """Places of the rows of each episode, oldest first; a row that is an observation alone is left out."""
        rows = np.arange(self._added - len(self), self._added)
        ends = np.flatnonzero(self._over[rows % self.capacity]) + 1
        parts = [part % self.capacity for part in np.split(rows, ends)]
        acted = [part[self._acted[part]] for part in parts]
        return [part for part in acted if len(part)]

    def _schema(self, place: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        last = np.arange(len(place)) == len(place) - 1
        return {
            **{name: table[place] for name, table in self._columns.items()},
            "action": self._action[place],
            "intervention": self._human[place],
            "next.reward": self._reward[place],
            "next.done": self._done[place],
            "next.truncated": last & ~self._done[place],
        }


def _allocate(rows: int, example: NDArray[Any]) -> NDArray[Any]:
    return np.zeros((rows, *example.shape), np.uint8 if example.dtype == np.uint8 else np.float32)


def _shifted(
    padded: NDArray[np.uint8], place: NDArray[np.int64], shift: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Images (B, H, W, C), each moved by a whole number of pixels of its own, edges repeated.

    A row of a moved image is the run of W pixels that begins some pixels earlier or later in memory: all of them are
    one gather, and only what comes in at an edge is written again.

    Args:
        padded: the table (N + 2, H, W, C), with an image to spare at either end.
        place: which images, 0 .. N - 1.
        shift: pixels each way at most.
        rng: of the moves.
    """
    _, height, width, depth = padded.shape
    down, right = rng.integers(-shift, shift + 1, (2, len(place)))
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)
    first = ((place[:, None] + 1) * height + rows) * width - right[:, None]
    runs: NDArray[Any] = np.ndarray(
        (padded.size // depth - width + 1,), f"V{width * depth}", padded.data, strides=(depth,)
    )
    out = runs[first].view(np.uint8).reshape(len(place), height, width, depth)
    for pixels in range(1, shift + 1):
        left, far = np.flatnonzero(right == pixels), np.flatnonzero(right == -pixels)
        out[left, :, :pixels] = out[left, :, pixels, None]
        out[far, :, width - pixels :] = out[far, :, width - pixels - 1, None]
    return out
