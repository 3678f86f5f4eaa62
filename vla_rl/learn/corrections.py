"""Corrections: who drove at each frame of a session, and which stretches of it belong together.

::

    rows            0 1 2 3 4 5 6 7 8 9 | 10 ...
    intervention    . . . h h h h . . h | .        two corrections; the second one ends with its episode
    stretch ends    3 3 3 7 7 7 7 9 9 10
    takeovers             3           9

A stretch is a run of frames of one episode under one driver. What is learned from a correction never reaches past its
end: the frames behind it are somebody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache
from vla_rl.data.outcomes import successes

Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Drivers:
    """Who drove, in several data sets after one another; N rows, E episodes.

    Attributes:
        starts: first row of each episode, and N, (E + 1,).
        human: a human drove, (N,).
        session: the row belongs to a session; all others are demonstrations, (N,).
        success: whether each row's episode came to success; False where nobody said, (N,).
    """

    starts: Rows
    human: Flags
    session: Flags
    success: Flags

    @classmethod
    def of(cls, caches: Sequence[FrameCache], sessions: int) -> Drivers:
        """Read them from data sets, of which the last `sessions` are sessions."""
        sizes = [len(cache) for cache in caches]
        first = np.cumsum([0, *sizes])
        starts = np.concatenate([*(c.starts[:-1] + f for c, f in zip(caches, first, strict=False)), first[-1:]])
        won = [told is True for cache in caches for told in successes(cache)]
        return cls(
            starts.astype(np.int64),
            np.concatenate([drove(cache) for cache in caches]),
            np.arange(first[-1]) >= first[len(caches) - sessions],
            np.repeat(np.array(won, bool), np.diff(starts)),
        )

    @property
    def episode(self) -> Rows:
        """Number of each row's episode, (N,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def ends(self) -> Rows:
        """One past the last row of each row's stretch, (N,)."""
        return stretch_ends(self.human, self.starts)

    @property
    def takeovers(self) -> Rows:
        """First rows of corrections, ascending."""
        begins = self.human & ~np.roll(self.human, 1)
        begins[self.starts[:-1]] = self.human[self.starts[:-1]]
        return np.flatnonzero(begins)

    @property
    def untouched(self) -> Flags:
        """Rows of episodes in which no human drove, (N,)."""
        touched = np.logical_or.reduceat(self.human, self.starts[:-1])
        return np.repeat(~touched, np.diff(self.starts))


def drove(cache: FrameCache) -> Flags:
    """Whether a human drove at each frame, (N,); nobody where the set does not say."""
    flags = cache.columns.get("intervention")
    return np.zeros(len(cache), bool) if flags is None else np.asarray(flags).reshape(len(cache)).astype(bool)


def stretch_ends(human: Flags, starts: Rows) -> Rows:
    """One past the last row of the run of equal flags, within its episode, that each row belongs to, (N,)."""
    count = len(human)
    changes = np.flatnonzero(human[1:] != human[:-1]) + 1
    borders = np.unique(np.concatenate([changes, starts[1:]]))
    return borders[np.searchsorted(borders, np.arange(count), side="right")].astype(np.int64)
