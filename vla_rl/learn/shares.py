"""Shares of a critic's transitions: which are held out, and how often each of the others is drawn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.transitions import ChunkTransitions
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.hil_serl import half_and_half

HOLDOUT = 2  # stream of `step_seed`


def episode_of(data: ChunkTransitions) -> NDArray[np.int64]:
    """Number of each transition's episode, counted through all sets, (len(data),)."""
    episodes, first = [], 0
    for each in data.sets:
        episodes.append(each.episode + first)
        first += len(each.starts) - 1
    return np.concatenate(episodes)[data.starts]


def held_out(data: ChunkTransitions, share: float, seed: int) -> NDArray[np.bool_]:
    """Which transitions belong to held-out episodes, (len(data),): `share` of the episodes, chosen by the seed."""
    owner = episode_of(data)
    episodes = np.unique(owner)
    count = math.ceil(share * len(episodes))
    if 0 < len(episodes) <= count:
        raise ValueError(f"holdout {share} leaves none of {len(episodes)} episodes to train on")
    return np.isin(owner, np.random.default_rng((seed, HOLDOUT)).permutation(episodes)[:count])


def sampling_weights(data: ChunkTransitions, config: CriticRunConfig, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sampling weight of each of some transitions, (len(rows),): by `--sessions`, or by `--mix`.

    Raises:
        ValueError: both are given, or more sessions than sets, or a share cannot be given.
    """
    if not config.sessions:
        return set_weights(data, config.mix, rows)
    if config.mix or config.sessions > len(data.sets):
        raise ValueError(f"--sessions {config.sessions} of {len(data.sets)} data sets: give at most all, and no --mix")
    return half_and_half(data.owner[rows] >= len(data.sets) - config.sessions, data.human[rows])


def set_weights(data: ChunkTransitions, mix: tuple[float, ...], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sampling weight of some transitions, (len(rows),): each set its share (RLPD's 50/50 is (1, 1)), or all alike.

    Raises:
        ValueError: not one share for each set, or a share for a set that has none of these transitions.
    """
    if not mix:
        return np.ones(len(rows))
    if len(mix) != len(data.sets):
        raise ValueError(f"--mix has {len(mix)} shares for {len(data.sets)} data sets")
    owner = data.owner[rows]
    count = np.bincount(owner, minlength=len(mix))
    empty = [number for number, share in enumerate(mix) if share > 0 and not count[number]]
    if empty:
        raise ValueError(
            f"--mix gives data set {empty[0]} a share of {mix[empty[0]]:g}, but no transition of it is left: its "
            "episodes are too short, or held out"
        )
    return (np.asarray(mix) / np.maximum(count, 1))[owner]
