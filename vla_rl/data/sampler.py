"""Which frames make up a batch: a pure function of seed and step, so that resuming needs no state at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ChunkSampler:
    """Draws indices in proportion to weights, with stratified sampling: the shares hold in every single batch.

    Attributes:
        weights: (N,) not negative; need not sum to one.
        batch_size: indices a step.
        seed: of the whole run.

    Raises:
        ValueError: no weight is above zero, or a weight is negative or not finite.
    """

    weights: NDArray[np.float64]
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        total = float(np.sum(self.weights)) if len(self.weights) else 0.0
        if not np.isfinite(total) or total <= 0 or np.min(self.weights) < 0:
            raise ValueError("sampling weights must be finite, not negative, and at least one above 0")
        object.__setattr__(self, "_cumulative", np.cumsum(self.weights) / total)

    def indices(self, step: int) -> NDArray[np.int64]:
        """The indices of batch number `step`, (B,), in random order."""
        rng = np.random.default_rng((self.seed, step))
        points = (np.arange(self.batch_size) + rng.random(self.batch_size)) / self.batch_size
        cumulative: NDArray[np.float64] = self._cumulative  # type: ignore[attr-defined]
        drawn = np.searchsorted(cumulative, points * cumulative[-1], side="right")
        return rng.permutation(np.minimum(drawn, np.flatnonzero(self.weights)[-1]))
