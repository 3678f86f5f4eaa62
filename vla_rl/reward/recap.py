"""RECAP with corrections: an episode with a takeover is a failure up to it, and from there on what it came to.

What led to a takeover was going to fail, or so the operator thought; what the operator then did, and the policy after
the hand-back, came to what the episode came to (RLinf's rule for pi*0.6, arXiv:2511.14759).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.reward.rule import EpisodeColumns
from vla_rl.reward.time_to_success import TimeToSuccess


@dataclass(frozen=True)
class Recap(TimeToSuccess):
    """Time to success, split at the first frame that a human drove."""

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,); an unmarked episode costs its steps and says nothing of its end."""
        failure = self.failure or float(episode.longest)
        step = np.float32(-1.0 / (episode.longest + failure))
        reward = np.full((len(episode),), step, np.float32)
        if episode.outcome is not None:
            reward[:] = super().__call__(episode)
        for cut in self.cuts(episode):
            reward[cut - 1] = step * (1.0 + failure)
        return reward

    def cuts(self, episode: EpisodeColumns) -> tuple[int, ...]:
        """The first frame that a human drove: no return reaches across it."""
        drove = np.asarray(episode.columns.get("intervention", np.zeros(len(episode)))).reshape(-1).astype(bool)
        first = int(np.argmax(drove))
        return (first,) if first > 0 else ()
