"""Pessimism: what an ensemble of E critics says together. One set of functions for TD targets and for steering.

Values are (E, ...), tensors or NumPy arrays, and stay what they are; the answer is (...). Neither library is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

AGGREGATES = ("min", "mean", "lcb", "random-subset-min")


def minimum(values: Any) -> Any:
    """The lowest of the ensemble (TD3, arXiv:1802.09477)."""
    return values.amin(0) if hasattr(values, "amin") else values.min(0)


def mean(values: Any) -> Any:
    """The mean of the ensemble: no pessimism."""
    return values.mean(0)


def std(values: Any) -> Any:
    """The ensemble's disagreement: the population's standard deviation."""
    return ((values - values.mean(0)) ** 2).mean(0) ** 0.5


def lcb(values: Any, k: float = 1.0) -> Any:
    """Lower confidence bound, mean - k std. For E = 2 and k = 1 it is the minimum.

    Raises:
        ValueError: an ensemble of one has no spread.
    """
    check_ensemble("lcb", len(values))
    return mean(values) - k * std(values)


def random_subset_min(values: Any, rng: np.random.Generator, size: int = 2) -> Any:
    """The lowest of `size` members drawn anew at each call (REDQ, arXiv:2101.05982; RLPD, arXiv:2302.02948).

    Raises:
        ValueError: the ensemble is smaller than that.
    """
    check_ensemble("random-subset-min", len(values), size)
    return minimum(values[rng.choice(len(values), size, replace=False).tolist()])


def check_ensemble(name: str, ensemble: int, size: int = 2) -> None:
    """Whether an ensemble is large enough for an aggregate.

    Raises:
        ValueError: unknown aggregate, or too few members; both sides are named.
    """
    if name not in AGGREGATES:
        raise ValueError(f"unknown aggregate '{name}'; there are: {', '.join(AGGREGATES)}")
    least = {"lcb": 2, "random-subset-min": size}.get(name, 1)
    if ensemble < least:
        raise ValueError(f"{name} needs an ensemble of {least} or more, this one has {ensemble}: take min or mean")


def make_aggregate(
    name: str, ensemble: int, *, k: float = 1.0, size: int = 2, rng: np.random.Generator | None = None
) -> Callable[[Any], Any]:
    """An aggregate by name: values (E, ...) to (...).

    Args:
        name: one of AGGREGATES.
        ensemble: members E that it will meet.
        k: standard deviations that `lcb` subtracts.
        size: members that `random-subset-min` draws.
        rng: draws them; a new one from seed 0 where None.

    Raises:
        ValueError: no such aggregate, or too few members for it.
    """
    check_ensemble(name, ensemble, size)
    rules: dict[str, Callable[[Any], Any]] = {
        "min": minimum,
        "mean": mean,
        "lcb": partial(lcb, k=k),
        "random-subset-min": partial(random_subset_min, rng=rng or np.random.default_rng(0), size=size),
    }
    return rules[name]
