"""Rank correlation: whether values order things as what came of them does."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Rank of each value, (N,), from 0; equal values share the mean of their ranks."""
    _, which, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[which]


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho of two (N,); 0 where one of them is constant, and so orders nothing."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0
