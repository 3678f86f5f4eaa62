"""Intervals and paired tests for success counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z95 = 1.959963984540054  # two-sided 95% quantile of the standard normal


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson, 1927).

    ::

        (p + z^2/2n  +-  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Returns:
        Lower and upper end, within [0, 1]; (0, 1) where there are no trials.

    Raises:
        ValueError: more successes than trials, or fewer than none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, float(trials)
    centre = p + z**2 / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: a fair coin decides each pair in which exactly one succeeded."""
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


@dataclass(frozen=True)
class Paired:
    """Two policies on the same episodes.

    Attributes:
        pairs: episodes that both played.
        both, only_first, only_second, neither: how many of them succeeded for whom.
        difference: success rate of the first minus the second.
        ci90, ci95: bootstrapped intervals of the difference.
        p_value: McNemar's exact test of no difference.
    """

    pairs: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    ci90: tuple[float, float]
    ci95: tuple[float, float]
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "ci90": list(self.ci90), "ci95": list(self.ci95)}


def paired(first: Sequence[bool], second: Sequence[bool], resamples: int = 10_000, seed: int = 0) -> Paired:
    """Compare two policies whose i-th outcomes are of the same episode.

    Raises:
        ValueError: different lengths, or nothing to compare.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"a paired comparison needs the same episodes on both sides, not {len(first)} and {len(second)}"
        )
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    # Resampling pairs is drawing the four counts anew: the same distribution, at a fixed cost.
    n = len(a)
    drawn = np.random.default_rng(seed).multinomial(n, np.array([only_a, only_b, both + neither]) / n, size=resamples)
    ends = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.05, 0.95, 0.975]).tolist()
    difference = (only_a - only_b) / n
    intervals = (ends[1], ends[2]), (ends[0], ends[3])
    return Paired(n, both, only_a, only_b, neither, difference, *intervals, mcnemar(only_a, only_b))
