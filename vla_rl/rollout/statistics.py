"""Intervals, paired tests and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def cluster_interval(
    groups: Sequence[NDArray[np.float64]], resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the mean over all members of groups, resampling whole groups.

    Args:
        groups: (n_i,) each; what belongs to one episode, for one, is not independent.
        resamples: how many.
        seed: of the draws.
        level: of the interval.

    Raises:
        ValueError: there is nothing to resample.
    """
    if not groups:
        raise ValueError("an interval needs at least one group")
    sums, counts = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups], dtype=np.float64)
    n = len(groups)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples)  # how often each is drawn
    means = (drawn @ sums) / np.maximum(drawn @ counts, 1.0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ranks(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Ranks from 1, equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def spearman(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """Spearman's rank correlation, ties sharing ranks; 0 where either side is constant: it orders nothing.

    Raises:
        ValueError: different lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"a correlation needs pairs, not {len(first)} and {len(second)} numbers")
    a, b = ranks(first) - (len(first) + 1) / 2, ranks(second) - (len(second) + 1) / 2
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else 0.0


def mean_of_tasks(
    groups: Sequence[NDArray[np.float64]], resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of the tasks' means, and its bootstrap interval, resampling the episodes of every task.

    Args:
        groups: a number an episode (a paired difference, for one), (n_t,) for each task.
        resamples, seed, level: as for `cluster_interval`.

    Returns:
        Mean, lower and upper end.
    """
    rng = np.random.default_rng(seed)
    means = np.mean([_resampled(np.asarray(group, dtype=np.float64), resamples, rng) for group in groups], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([np.mean(group) for group in groups])), float(low), float(high)


def _resampled(group: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of resampled episodes, (resamples,); equal numbers are drawn together."""
    levels, counts = np.unique(group, return_counts=True)
    drawn = rng.multinomial(len(group), counts / len(group), size=resamples)
    return np.asarray(drawn @ levels / len(group))


def auc(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float | None:
    """Chance that a positive one scores above a negative one, ties half (Mann-Whitney); None where one is missing."""
    good, bad = int(positive.sum()), int((~positive).sum())
    if not good or not bad:
        return None
    return float((ranks(scores)[positive].sum() - good * (good + 1) / 2) / (good * bad))
