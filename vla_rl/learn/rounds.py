"""Rounds: what a session says of the policy that drove it, against the time that a human spent on it.

A takeover says that the policy would have failed, or so the operator thought: `autonomous` counts what succeeded
without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache
from vla_rl.data.outcomes import successes
from vla_rl.learn.corrections import Drivers, drove

WINDOW = 20  # episodes of a point of the curve


@dataclass(frozen=True)
class Round:
    """Some episodes of a session, summed up.

    Attributes:
        episodes: how many.
        success: share that came to success, of those that were marked; None where none was.
        autonomous: share that came to success without a takeover, of the same; likewise.
        unmarked: episodes of which nobody said what they came to.
        cycle_s: mean length of the successes [s]; None where there is none.
        takeovers: an episode.
        intervention_rate: share of the frames that a human drove.
        human_minutes: driven by a human.
        robot_minutes: in all.
    """

    episodes: int
    success: float | None
    autonomous: float | None
    unmarked: int
    cycle_s: float | None
    takeovers: float
    intervention_rate: float
    human_minutes: float
    robot_minutes: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Episodes:
    """Numbers of E episodes in the order in which they were played, (E,) each; `won` is nan where nobody said."""

    steps: NDArray[np.int64]
    human: NDArray[np.int64]
    takeovers: NDArray[np.int64]
    won: NDArray[np.float64]
    fps: float

    def some(self, first: int, last: int) -> Round:
        """Episodes `first` to `last` (exclusive) as a round."""
        steps, human, taken, won = (values[first:last] for values in (self.steps, self.human, self.takeovers, self.won))
        known = ~np.isnan(won)
        alone = np.where(taken == 0, won, 0.0)
        times = steps[won == 1.0] / self.fps
        return Round(
            episodes=len(steps),
            success=float(won[known].mean()) if known.any() else None,
            autonomous=float(alone[known].mean()) if known.any() else None,
            unmarked=int((~known).sum()),
            cycle_s=float(times.mean()) if len(times) else None,
            takeovers=float(taken.mean()),
            intervention_rate=float(human.sum() / steps.sum()),
            human_minutes=float(human.sum() / self.fps / 60.0),
            robot_minutes=float(steps.sum() / self.fps / 60.0),
        )


def summary(caches: Sequence[FrameCache]) -> Round:
    """All episodes of sessions as one round."""
    episodes = _read(caches)
    return episodes.some(0, len(episodes.steps))


def curve(caches: Sequence[FrameCache], window: int = WINDOW) -> list[dict[str, Any]]:
    """Rounds of `window` episodes after one another, the last one with the rest; each with the human minutes so far.

    Returns:
        JSON-ready: `Round.to_dict` of each and `human_minutes_so_far`, up to its end.
    """
    episodes = _read(caches)
    count = len(episodes.steps)
    firsts = [*range(0, max(count - window + 1, 1), window)]
    bounds = [*firsts, count]
    points, spent = [], 0.0
    for first, last in itertools.pairwise(bounds):
        point = episodes.some(first, last)
        spent += point.human_minutes
        points.append({**point.to_dict(), "human_minutes_so_far": spent})
    return points


def _read(caches: Sequence[FrameCache]) -> _Episodes:
    drivers = Drivers.of(caches, len(caches))
    first = drivers.starts[:-1]
    begins = np.zeros(len(drivers.human), np.int64)
    begins[drivers.takeovers] = 1
    told = [told for cache in caches for told in successes(cache)]
    human = np.concatenate([drove(cache) for cache in caches]).astype(np.int64)
    return _Episodes(
        np.diff(drivers.starts),
        np.add.reduceat(human, first),
        np.add.reduceat(begins, first),
        np.array([np.nan if each is None else float(each) for each in told]),
        caches[0].fps,
    )
