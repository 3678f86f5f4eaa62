"""Support: the range of values that a distributional head can say, and whether targets stay inside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

MARGIN = 3  # bins beyond the possible returns on each side: four of HL-Gauss's sigmas, so that no histogram is cut off
MOST_CLIPPED = 0.01


@dataclass(frozen=True)
class Support:
    """The interval [low, high] in `bins` bins.

    A support that does not hold the returns is the known failure of distributional critics: targets are clamped to
    it, and the critic can not say what they were.

    Raises:
        ValueError: low and high are no interval, or there are fewer than two bins.
    """

    low: float
    high: float
    bins: int = 101

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a value support needs low < high, both finite, not [{self.low:g}, {self.high:g}]")
        if self.bins < 2:
            raise ValueError(f"a value support needs 2 bins or more, not {self.bins}")

    @classmethod
    def from_reward(
        cls,
        low_reward: float,
        high_reward: float,
        gamma: float,
        horizon: int | None = None,
        *,
        final: Sequence[float] = (0.0, 0.0),
        bins: int = 101,
    ) -> Support:
        """The returns that rewards and discount allow, and a margin of three bins on each side.

        The bounds are 0 (an episode may end at once) and the discounted sum of the extreme reward at every step.

        Args:
            low_reward, high_reward: bounds of the reward of one step.
            gamma: discount a step.
            horizon: steps of the longest episode; None where there is no limit, which needs gamma below 1.
            final: bounds of what is paid once, at the end: (0, 1) for a sparse success.
            bins: of the support.

        Raises:
            ValueError: no finite bound exists, or only one return is possible.
        """
        if horizon is None and gamma >= 1:
            raise ValueError(f"without discount (gamma {gamma:g}) the returns have no bound: name the horizon")
        steps = horizon if gamma == 1 else (1 - gamma ** (math.inf if horizon is None else horizon)) / (1 - gamma)
        assert steps is not None
        return cls.around(
            min(0.0, low_reward * steps) + min(0.0, final[0]), max(0.0, high_reward * steps) + max(0.0, final[1]), bins
        )

    @classmethod
    def from_returns(cls, returns: Tensor, bins: int = 101) -> Support:
        """The range of observed returns, and a margin of three bins on each side."""
        return cls.around(float(returns.min()), float(returns.max()), bins)

    @classmethod
    def around(cls, low: float, high: float, bins: int = 101) -> Support:
        """[low, high] in the middle of the bins, three of which lie beyond it on each side."""
        if bins <= 2 * MARGIN:
            raise ValueError(f"a support with its margins needs more than {2 * MARGIN} bins, not {bins}")
        if not low < high:
            raise ValueError(f"rewards and discount allow the return {low:g} only: there is nothing to learn")
        margin = MARGIN * (high - low) / (bins - 2 * MARGIN)
        return cls(low - margin, high + margin, bins)

    def clipped_fraction(self, targets: Tensor) -> float:
        """Share of targets outside [low, high], 0..1."""
        return float(((targets < self.low) | (targets > self.high)).float().mean())

    def warning(self, targets: Tensor, most: float = MOST_CLIPPED) -> str | None:
        """One line that names the range needed where more than `most` of the targets are clipped, else None."""
        share = self.clipped_fraction(targets)
        if share <= most:
            return None
        return (
            f"{share:.1%} of the value targets lie outside the support [{self.low:g}, {self.high:g}] and are clipped: "
            f"they need [{float(targets.min()):.4g}, {float(targets.max()):.4g}]"
        )
