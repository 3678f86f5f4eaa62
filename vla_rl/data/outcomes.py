"""Outcomes: how the episodes of a data set ended, whoever wrote it. A time limit is never a terminal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache
from vla_rl.types import Outcome

PAUSE_NS = 500_000_000  # what was seen later than this after an action is none of its doing,
PAUSE_PERIODS = 2  # where that is longer than so many periods of a slow policy


@dataclass(frozen=True, eq=False)
class Endings:
    """How episodes ended.

    Attributes:
        done: the action led to a terminal state, (N,).
        truncated: the episode was cut after the action, (N,); every episode's last row is one or the other.
        success: whether each episode came to success, None where the set does not say, E of them.
    """

    done: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: tuple[bool | None, ...]


def endings(cache: FrameCache) -> Endings:
    """Read how episodes ended from what the set has.

    With `next.truncated` the set tells terminals and time limits apart, as ours do. Sets that have `next.done` alone
    (LeRobot's record mode, its replay buffer) write it for time limits too: there only a success is a terminal, or,
    where the set tells of no success at all, a `done` with a reward above zero. Sets with neither end in a terminal
    where the episode succeeded.
    """
    rows, last = len(cache), cache.starts[1:] - 1
    success = successes(cache)
    done, cut = _flags(cache, "next.done"), _flags(cache, "next.truncated")
    if cut is None:
        done = _unmerged(cache, done, success)
        cut = np.zeros(rows, bool)
    over = np.zeros(rows, bool) if done is None else done
    closing = np.zeros(rows, bool)
    closing[last] = True
    return Endings(over, (cut | closing) & ~over, success)


def successes(cache: FrameCache) -> tuple[bool | None, ...]:
    """Whether each episode succeeded: its meta's outcome, else any `next.success`; None where neither tells.

    Where the outcome is said to be unknown, a flag that nobody raised is no failure.
    """
    told = [str(episode.get("outcome", "")) for episode in cache.episodes]
    known: list[bool | None] = [{"success": True, "failure": False}.get(outcome) for outcome in told]
    flags = _flags(cache, "next.success")
    if flags is None:
        return tuple(known)
    seen = np.logical_or.reduceat(flags, cache.starts[:-1]).tolist()
    found = [s if k is None else k for k, s in zip(known, seen, strict=True)]
    return tuple(f or None if t == Outcome.UNKNOWN else f for f, t in zip(found, told, strict=True))


def left_alone(cache: FrameCache) -> NDArray[np.bool_]:
    """Whether nobody acted for long after a row, (N,): the arm was paused or stopped, and whoever reset the scene did.

    Sessions leave such periods out; nothing may be bootstrapped, and no chunk imitated, over the hole.
    """
    stamps = np.asarray(cache.columns.get("stamp_ns", np.zeros(len(cache), np.int64))).reshape(len(cache))
    return np.diff(stamps, append=stamps[-1:]) > max(PAUSE_NS, PAUSE_PERIODS * 1e9 / cache.fps)


def _unmerged(
    cache: FrameCache, done: NDArray[np.bool_] | None, success: tuple[bool | None, ...]
) -> NDArray[np.bool_] | None:
    """Terminals among the rows at which an episode was over, for whatever reason."""
    succeeded = np.array([each is True for each in success])
    by_row = np.repeat(succeeded, np.diff(cache.starts))
    last = np.zeros(len(cache), bool)
    last[cache.starts[1:] - 1] = True
    if done is None:
        return last & by_row
    if any(each is not None for each in success):
        return done & by_row
    reward = cache.columns.get("next.reward")
    return done & (np.asarray(reward) > 0) if reward is not None else np.zeros(len(cache), bool)


def _flags(cache: FrameCache, name: str) -> NDArray[np.bool_] | None:
    found = cache.columns.get(name)
    return None if found is None else np.asarray(found).reshape(len(cache)).astype(bool)
