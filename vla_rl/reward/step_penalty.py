"""Step penalty: every step costs the same until success, so that the value is the time that is still needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import EpisodeColumns, Tail


@dataclass(frozen=True)
class StepPenalty:
    """`-penalty` at every step, 0 at the one that leads to success and after it.

    An episode that was cut would have gone on costing: its Monte-Carlo returns repeat the penalty for ever, so that a
    failure is never worth as much as a success of the same length.

    Attributes:
        penalty: what a step costs.
    """

    penalty: float = 1.0
    high: float = 0.0
    tail: Tail = "repeat"
    looks: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a penalty that would reward failing, or none."""
        if not self.penalty > 0:
            raise ValueError(f"a step's penalty is what it costs, a positive number, not {self.penalty:g}")

    @property
    def low(self) -> float:
        """The least reward of a step."""
        return -self.penalty

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,)."""
        reward = np.full(len(episode), -self.penalty, np.float32)
        if episode.success:
            reward[episode.success_row :] = 0.0
        return reward
