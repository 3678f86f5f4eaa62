"""Time to success: RECAP's return (pi*0.6, arXiv:2511.14759), -1 for a failure, near 0 just before a success."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import EpisodeColumns, Tail


@dataclass(frozen=True)
class TimeToSuccess:
    """Every step costs 1, the one that leads to success nothing, a failure's last step `failure` more; all in [-1, 0].

    Scaled by the longest episode plus `failure`. Made for Monte-Carlo returns with gamma 1.

    Attributes:
        failure: cost of a failure, in steps; 0 takes the length of the data set's longest episode.
    """

    failure: float = 0.0
    low: float = -1.0
    high: float = 0.0
    tail: Tail = "zero"
    looks: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a failure that would pay."""
        if not self.failure >= 0:
            raise ValueError(f"failure is what one costs in steps, at least 0, not {self.failure:g}")

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,)."""
        failure = self.failure or float(episode.longest)
        reward = np.full(len(episode), -1.0)
        if episode.success:
            reward[episode.success_row :] = 0.0
        else:
            reward[-1] -= failure
        return np.asarray(reward / (episode.longest + failure), np.float32)
