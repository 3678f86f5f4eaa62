"""Sampling weights: frames where the words decide get a share of their own.

What to reach for is chosen in an episode's first frames, where to bring it in the frames after the gripper has closed.
At all other frames the state gives the choice away, and a policy that sees frames uniformly learns to ignore the words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CLOSED = 0.2  # of an episode's range of gripper commands, from below
_LEAST_RANGE = 5.0  # of gripper commands in an episode [percent]: below it nothing was grasped


def grasps(gripper: NDArray[np.float32], episode: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows at which the gripper's command arrives at closed.

    Args:
        gripper: commands, (N,) [percent].
        episode: number of each row's episode, ascending, (N,).

    Returns:
        Rows, ascending.
    """
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    number = np.repeat(np.arange(len(starts)), np.diff([*starts, len(episode)]))
    low, high = np.minimum.reduceat(gripper, starts), np.maximum.reduceat(gripper, starts)
    closed = (gripper <= (low + _CLOSED * (high - low))[number]) & ((high - low)[number] >= _LEAST_RANGE)
    arrives = closed & ~np.roll(closed, 1)
    arrives[starts] = False
    return np.flatnonzero(arrives)


def following(rows: NDArray[np.int64], episode: NDArray[np.int64], frames: int) -> NDArray[np.bool_]:
    """Which rows are at one of `rows` or fewer than `frames` after it, in the same episode, (N,)."""
    found = np.zeros(len(episode), bool)
    ahead = np.minimum(rows[:, None] + np.arange(frames), len(episode) - 1)
    found[ahead[episode[ahead] == episode[rows][:, None]]] = True
    return found


def shares(decisive: NDArray[np.bool_], fraction: float | None, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights (N,) that sum to one: equal shares of the groups, `fraction` of each on its decisive rows.

    Args:
        decisive: (N,).
        fraction: in [0, 1], or None for uniform weights within a group.
        groups: number of each row's group, (N,).
    """
    weights = np.zeros(len(decisive))
    for group in np.unique(groups):
        inside = groups == group
        weights[inside] = _share(decisive[inside], fraction)
    return weights / weights.sum()


def _share(decisive: NDArray[np.bool_], fraction: float | None) -> NDArray[np.float64]:
    if fraction is None or decisive.all() or not decisive.any():
        return np.full(len(decisive), 1.0 / len(decisive))
    return np.where(decisive, fraction / decisive.sum(), (1.0 - fraction) / (~decisive).sum())
