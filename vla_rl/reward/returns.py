"""Monte-Carlo returns: what an episode really earned from each step on; nothing is bootstrapped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import Tail


def monte_carlo(
    reward: NDArray[np.float32], gamma: float, *, terminal: bool, tail: Tail = "zero"
) -> NDArray[np.float32]:
    """G_t = sum_{i >= 0} gamma^i r_{t+i}, (T,), of one episode.

    Args:
        reward: (T,).
        gamma: discount a step.
        terminal: whether the episode ended in a terminal: nothing follows.
        tail: what follows a cut: nothing ("zero": a lower bound where rewards are positive), or the last reward for
            ever ("repeat": r_T / (1 - gamma)).

    Raises:
        ValueError: gamma 1 with a tail that goes on for ever.
    """
    endless = not terminal and tail == "repeat" and len(reward) > 0 and reward[-1] != 0
    if endless and gamma >= 1.0:
        raise ValueError("gamma 1 gives an episode that was cut an endless return; take a gamma below 1")
    returns = np.zeros(len(reward), np.float64)
    following = float(reward[-1]) / (1.0 - gamma) if endless else 0.0
    for t in reversed(range(len(reward))):
        following = float(reward[t]) + gamma * following
        returns[t] = following
    return returns.astype(np.float32)
