"""Player: which action of which chunk is due now, and how chunks that overlap are joined.

::

    chunk a   stamp |a0---a1---a2---a3---a4---a5|
    chunk b              stamp |b0---b1---b2---b3---b4---b5|
    now                                 ^ a is 2.5 periods old: between a2 and a3, and between b0 and b1

Action i of a chunk is due i dt after its observation's stamp, on the robot's clock; in between it is interpolated. No
action is played whose observation is older than `max_open_loop_s`, however long the chunk is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vla_rl.execute.actions import RejectedError
from vla_rl.execute.ensemble import adaptive_ensemble, temporal_ensemble
from vla_rl.types import Array

GRACE = 0.5  # periods for which the last action stays due: a late successor is no reason to stop
SNAP = 1e-3  # periods: this close to an action's time is at it, so that rounding of stamps does not interpolate


@dataclass(frozen=True)
class PlayerConfig:
    """How chunks are accepted and joined.

    Attributes:
        joining: the newest alone (`latest`), ACT's `temporal` or CogACT's `adaptive` ensemble, or `blend`: from the
            chunk before to the newest, linearly over their overlap.
        max_open_loop_s: how old the observation of an action may be [s].
        max_future_s: how far ahead of the robot's clock a stamp may be [s].
        max_age_s: how old a chunk's observation may be when it arrives [s].
        blend_s: longest blend [s].
    """

    joining: str = "temporal"
    max_open_loop_s: float = 0.5
    max_future_s: float = 0.05
    max_age_s: float = 0.5
    blend_s: float = 0.3


@dataclass(frozen=True, eq=False)
class Due:
    """The action of now.

    Attributes:
        action: joint targets, (J,) [rad].
        chunk_stamp_ns: stamp of the newest chunk in it.
        index: of the action in that chunk.
        age_s: of that chunk's observation [s].
        candidate: which of the policy's candidates that chunk was, -1 where unknown.
    """

    action: Array
    chunk_stamp_ns: int
    index: int
    age_s: float
    candidate: int


@dataclass(frozen=True, eq=False)
class _Playing:
    """A chunk under way: absolute joint targets (H, J) [rad], and when it was accepted, robot clock."""

    targets: Array
    dt: float
    stamp_ns: int
    accepted_ns: int
    candidate: int

    def age(self, now_ns: int) -> float:
        return max(now_ns - self.stamp_ns, 0) * 1e-9

    def at(self, now_ns: int) -> Array:
        """The action of now, (J,): interpolated, the last one where they have run out."""
        place = min(self.age(now_ns) / self.dt, len(self.targets) - 1)
        if abs(place - round(place)) < SNAP:
            return self.targets[round(place)]
        first, part = math.floor(place), place % 1.0
        return (1.0 - part) * self.targets[first] + part * self.targets[first + 1]


class Player:
    """Plays chunks by the robot's clock.

    Raises:
        ValueError: an unknown joining mode; the message lists those that exist.
    """

    def __init__(self, config: PlayerConfig | None = None) -> None:
        self.config = config or PlayerConfig()
        if self.config.joining not in JOINING:
            raise ValueError(f"unknown joining '{self.config.joining}'; there are: {', '.join(JOINING)}")
        self._chunks: deque[_Playing] = deque(maxlen=64)
        self._newest_ns = self._flushed_ns = -1

    def accept(self, targets: Array, dt: float, stamp_ns: int, now_ns: int, candidate: int = -1) -> None:
        """Take a chunk of absolute joint targets (H, J) [rad] into play.

        Raises:
            RejectedError: stale, from the future, from before the last flush, or not newer than the newest.
        """
        age = (now_ns - stamp_ns) * 1e-9
        if age < -self.config.max_future_s:
            raise RejectedError("future", f"a chunk's observation is {-age:.3f} s in the future")
        if stamp_ns <= self._flushed_ns:
            raise RejectedError("flushed", "a chunk answers an observation from before all chunks were discarded")
        if age > min(self.config.max_age_s, self.config.max_open_loop_s):
            raise RejectedError("stale", f"a chunk's observation is {age:.3f} s old")
        if stamp_ns <= self._newest_ns:
            raise RejectedError("older", "a chunk answers no newer observation than the chunk before")
        self._newest_ns = stamp_ns
        self._chunks.append(_Playing(targets, dt, stamp_ns, now_ns, candidate))

    def flush(self, now_ns: int) -> None:
        """Discard all chunks, and all that are still to come for observations up to now (robot clock)."""
        self._chunks.clear()
        self._newest_ns, self._flushed_ns = -1, now_ns

    def due(self, now_ns: int) -> Due | None:
        """The action of now, or None where no chunk has one."""
        playing = [chunk for chunk in self._chunks if now_ns <= self._end_ns(chunk)]
        if not playing:
            return None
        newest = playing[-1]
        action, age = self._joined(playing, now_ns), newest.age(now_ns)
        index = min(math.floor(age / newest.dt + SNAP), len(newest.targets) - 1)
        return Due(action, newest.stamp_ns, index, age, newest.candidate)

    def preview(self, chunks: Array, dt: float, stamp_ns: int, from_ns: int, steps: int) -> Array:
        """What would be executed from a stamp on, were one of K chunks the next to be accepted.

        Args:
            chunks: (K, H, J) [rad].
            dt: time between two of their actions [s].
            stamp_ns: of their observation.
            from_ns: when one of them would be accepted, robot clock [ns].
            steps: how many actions.

        Returns:
            (K, steps, J): until `from_ns` what is under way, then that joined with each; where nothing is under way,
            the chunk itself.
        """
        fresh = [_Playing(chunk, dt, stamp_ns, from_ns, k) for k, chunk in enumerate(chunks)]
        rows = [self._with_each(fresh, from_ns, stamp_ns + round(i * dt * 1e9)) for i in range(steps)]
        return np.stack(rows, axis=1)

    def _with_each(self, fresh: list[_Playing], from_ns: int, now_ns: int) -> Array:
        """The action of a moment with each of K chunks besides, (K, J)."""
        playing = [chunk for chunk in self._chunks if now_ns <= self._end_ns(chunk)]
        if playing and now_ns < from_ns:
            return np.stack([self._joined(playing, now_ns)] * len(fresh))
        return np.stack([self._joined([*playing, chunk], now_ns) for chunk in fresh])

    def _joined(self, playing: list[_Playing], now_ns: int) -> Array:
        one = len(playing) == 1
        return playing[0].at(now_ns) if one else JOINING[self.config.joining](self, playing, now_ns)

    def _end_ns(self, chunk: _Playing) -> int:
        """Until when a chunk has actions, robot clock [ns]."""
        length = (len(chunk.targets) - 1 + GRACE) * chunk.dt
        return chunk.stamp_ns + round(min(length, self.config.max_open_loop_s) * 1e9)

    def _latest(self, playing: list[_Playing], now_ns: int) -> Array:
        return playing[-1].at(now_ns)

    def _temporal(self, playing: list[_Playing], now_ns: int) -> Array:
        return temporal_ensemble(np.stack([chunk.at(now_ns) for chunk in playing]))

    def _adaptive(self, playing: list[_Playing], now_ns: int) -> Array:
        origin = playing[-1].targets[0]  # CogACT compares motions: absolute positions all point the same way
        return origin + adaptive_ensemble(np.stack([chunk.at(now_ns) for chunk in playing]) - origin)

    def _blend(self, playing: list[_Playing], now_ns: int) -> Array:
        action = playing[0].at(now_ns)
        for before, chunk in pairwise(playing):
            overlap = min(self._end_ns(before) - chunk.accepted_ns, self.config.blend_s * 1e9)
            part = min((now_ns - chunk.accepted_ns) / max(overlap, 1.0), 1.0)
            action = (1.0 - part) * action + part * chunk.at(now_ns)
        return action


JOINING: dict[str, Callable[[Player, list[_Playing], int], Array]] = {
    "latest": Player._latest,
    "temporal": Player._temporal,
    "adaptive": Player._adaptive,
    "blend": Player._blend,
}
