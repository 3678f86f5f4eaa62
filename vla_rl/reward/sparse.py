"""Sparse: success is worth something, nothing else is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import EpisodeColumns, Tail


@dataclass(frozen=True)
class Sparse:
    """`success` at the step that leads to success, 0 at all others: with gamma below 1 sooner is better.

    Attributes:
        success: the reward of success.
        unmarked: 1 takes an episode that nobody marked for one that earned nothing; 0 refuses it.
    """

    success: float = 1.0
    unmarked: float = 0.0
    low: float = 0.0
    tail: Tail = "zero"
    looks: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a success that is worth nothing, or less."""
        if not self.success > 0:
            raise ValueError(f"a success is worth a positive number, not {self.success:g}")

    @property
    def high(self) -> float:
        """The greatest reward of a step."""
        return self.success

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,)."""
        reward = np.zeros(len(episode), np.float32)
        if not (self.unmarked and episode.outcome is None) and episode.success:
            reward[episode.success_row] = self.success
        return reward
