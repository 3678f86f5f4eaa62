"""StateValue: V of an observation, and of a goal where there is one. IQL's V, RECAP's baseline."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vla_rl.policy.normalize import MissingStatisticsError
from vla_rl.value.config import ValueConfig
from vla_rl.value.heads import make_head
from vla_rl.value.inputs import ObservationInput
from vla_rl.value.layers import EnsembleLinear, layer


class StateValue(nn.Module):
    """V(observation[, goal]), an ensemble of E (mostly 1).

    Args:
        config: shapes and choices. There are no statistics yet: `set_stats`, or load a checkpoint.
    """

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        members, width = config.ensemble, config.width
        self.config = config
        self.head = make_head(config.head, config.support)
        sizes = {"features": config.feature_dim, "state": config.state_dim, "goal": config.goal_dim}
        self.observation = ObservationInput(**sizes)
        widths = [self.observation.size, *[width] * config.depth]
        self.trunk = nn.Sequential(*(layer(members, a, b) for a, b in pairwise(widths)))
        self.out = EnsembleLinear(members, width, self.head.size)
        self._usable = False

    def set_stats(self, stats: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over statistics as `critic_stats` returns them; those of chunks are not needed."""
        self.observation.set_stats(stats)

    def require(self) -> None:
        """Raise MissingStatisticsError where there are no statistics."""
        if not self._usable and not self.observation.ready:
            raise MissingStatisticsError("the state value has no statistics: call set_stats or load a checkpoint")
        self._usable = True

    def logits(self, features: Tensor | None, state: Tensor | None, goal: Tensor | None = None) -> Tensor:
        """The head's raw outputs (E, B, size), float32, for features (B, D), states (B, S) and goals (B, G)."""
        self.require()
        out: Tensor = self.out(self.trunk(self.observation(features=features, state=state, goal=goal)))
        return out.float()

    def forward(self, features: Tensor | None, state: Tensor | None, goal: Tensor | None = None) -> Tensor:
        """Expected returns, (E, B)."""
        return self.head.mean(self.logits(features, state, goal))
