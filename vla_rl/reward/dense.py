"""Dense: what a step adds to the progress that the data set tells of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import EpisodeColumns, Tail


@dataclass(frozen=True)
class Dense:
    """Potential-based (Ng, Harada, Russell 1999): r_t = gamma phi(s_{t+1}) - phi(s_t), phi = 1 at a success.

    The undiscounted return of a success is 1 - phi(s_t). Behind the last step of a cut episode phi is not known: that
    step earns nothing.

    Attributes:
        column: progress of each frame in [0, 1], before its action.
        success: added at the step that leads to success.
        gamma: discount of the potential.
    """

    column: str = "progress"
    success: float = 0.0
    gamma: float = 1.0
    low: float = -1.0
    tail: Tail = "zero"
    looks: bool = False

    @property
    def high(self) -> float:
        """The greatest reward of a step."""
        return 1.0 + self.success

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,)."""
        if self.column not in episode.columns:
            known = ", ".join(sorted(episode.columns))
            raise ValueError(f"{episode.source} has no column '{self.column}' for a dense reward; it has: {known}")
        potential = np.asarray(episode.columns[self.column], np.float32).reshape(len(episode))
        following = np.append(potential[1:], 1.0 if episode.success else potential[-1] / max(self.gamma, 1e-6))
        reward = self.gamma * following - potential
        if episode.success:
            reward[episode.success_row] += self.success
        return np.asarray(reward, np.float32)
