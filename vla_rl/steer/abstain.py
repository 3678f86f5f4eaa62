"""Abstention: when a critic's word is not enough to leave the policy's first candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]

MARGIN, NOVEL = "margin", "novel"


@dataclass(frozen=True, kw_only=True)
class AbstainConfig:
    """When to abstain; 0 never does.

    Attributes:
        margin: abstain where the chosen candidate's advantage over the first is less than so many standard deviations
            of that advantage over the ensemble. Its members disagree less on a difference than on a value.
        novelty: abstain where the observation's features are further from the critic's training data than so many
            times the distance that 99% of those lie within.
    """

    margin: float = 0.0
    novelty: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a negative number."""
        if not (self.margin >= 0 and self.novelty >= 0):
            raise ValueError(f"margin and novelty must not be negative: {self}")


def advantage(values: Values, chosen: int, base: int) -> tuple[float, float]:
    """Mean and standard deviation over the ensemble (E, K) of a candidate's advantage over another.

    The deviation is the unbiased one: with two members the biased one is too small by a factor of 1.4.
    """
    gap = values[:, chosen] - values[:, base]
    return float(gap.mean()), float(gap.std(ddof=1)) if len(gap) > 1 else 0.0


def abstention(
    config: AbstainConfig, values: Values | None, chosen: int, base: int, distance: float = float("nan")
) -> str:
    """Why the base candidate is better taken: "margin", "novel", or "" where it is not.

    Args:
        config: when.
        values: (E, K), finite for both candidates.
        chosen: what the rule took.
        base: what it would otherwise be.
        distance: of the observation, 1 is what 99% of the training data lie within; nan where it is not known.
    """
    if config.novelty and distance > config.novelty:
        return NOVEL
    if not config.margin or values is None or chosen == base:
        return ""
    mean, spread = advantage(values, chosen, base)
    return MARGIN if mean <= config.margin * spread else ""
