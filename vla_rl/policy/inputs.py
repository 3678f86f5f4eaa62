"""Columns of observations to a policy's batch: history padded, images brought to the policy's size as training did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.observe.image import resize

Columns = Mapping[str, NDArray[Any]]


def observation_batch(histories: Sequence[Sequence[Columns]], tasks: Sequence[str], config: Any) -> dict[str, Any]:
    """A policy's batch from the newest frames of B observations.

    Args:
        histories: B times the frames it has, oldest first; the first repeats where there are fewer than it wants.
        tasks: B instructions.
        config: of the policy: `input_features` and `n_obs_steps`.

    Returns:
        images (B, 3, H, W) uint8 and states (B, S) float32, with a time axis behind B where the policy sees several
        frames, and `task`: one instruction an observation.
    """
    steps = int(config.n_obs_steps)
    padded = [[*[history[0]] * (steps - len(history)), *history[-steps:]] for history in histories]
    batch: dict[str, Any] = {"task": list(tasks)}
    for key, feature in config.input_features.items():
        shape = tuple(feature.shape)
        values = np.stack([[_fitted(frame[key], shape) for frame in history] for history in padded])  # (B, To, ...)
        batch[key] = torch.from_numpy(values if steps > 1 else values[:, 0])
    return batch


def _fitted(value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A column as the policy takes it: images (H, W, 3) become (3, h, w) at its resolution, as training saw them."""
    if value.dtype != np.uint8:
        return value
    return np.ascontiguousarray(np.moveaxis(resize(value, (shape[1], shape[2])), -1, 0))
