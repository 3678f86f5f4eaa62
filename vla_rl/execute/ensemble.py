"""Several chunks, each of which says what to do now, to one action. Pure functions over numpy arrays.

Only chunks that were really chosen should meet here: the mean of a chosen and a rejected candidate is neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_rl.types import Array


def predictions_for(step: int, starts: Sequence[int], chunks: Sequence[Array]) -> Array:
    """What each chunk says about one time step.

    Args:
        step: time step.
        starts: time step of each chunk's first action, oldest chunk first.
        chunks: (H, A) each.

    Returns:
        (n, A), oldest prediction first, of the n chunks that cover the step.

    Raises:
        ValueError: none does.
    """
    rows = [chunk[step - start] for start, chunk in zip(starts, chunks, strict=True) if 0 <= step - start < len(chunk)]
    if not rows:
        raise ValueError(f"no chunk covers step {step}; they start at {list(starts)}")
    return np.stack(rows)


def temporal_ensemble(predictions: Array, decay: float = 0.01) -> Array:
    """ACT's weighted mean (arXiv:2304.13705): w_i = exp(-decay i), i = 0 the OLDEST prediction.

    Args:
        predictions: (n, A) for one time step, oldest first.
        decay: how much less newer predictions count; 0 is the plain mean.
    """
    return _weighted(predictions, np.exp(-decay * np.arange(len(predictions))))


def adaptive_ensemble(predictions: Array, alpha: float = 0.1) -> Array:
    """CogACT's weighted mean (arXiv:2411.19650): w_i = exp(alpha cos(newest, prediction_i)).

    A past prediction of another mode points elsewhere and counts less.

    Args:
        predictions: (n, A) for one time step, oldest first.
        alpha: how much agreement with the newest prediction counts; 0 is the plain mean.
    """
    newest = predictions[-1]
    norms = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    return _weighted(predictions, np.exp(alpha * (predictions @ newest) / (norms + 1e-7)))


def _weighted(predictions: Array, weights: Array) -> Array:
    """Mean of (n, A) with weights (n,)."""
    return (weights / weights.sum()) @ predictions
