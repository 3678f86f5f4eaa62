"""Candidates on record: at which steps of an episode chunks were drawn, all of them, and which one was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.episode_file import Columns


@dataclass(frozen=True, eq=False)
class Draw:
    """K chunks drawn at one step.

    Attributes:
        row: the step, counted from the episode's first.
        chunks: in the units of the episode's actions, (K, H, A).
        values: what an ensemble of E critics said of them, (E, K), None where there was no critic.
        selected: which one was taken.
        seed: of the noise.
    """

    row: int
    chunks: NDArray[np.float32]
    values: NDArray[np.float32] | None = None
    selected: int = 0
    seed: int = 0


def stack(draws: Sequence[Draw]) -> Columns:
    """The draws of an episode as columns of M rows; empty where nothing was drawn.

    ========  =========================================================================================
    row       (M,) int64
    chunks    (M, K, H, A) float32; NaN where a step had fewer than K
    values    (M, E, K) float32; NaN where a step had no critic or fewer; missing where no step had one
    selected  (M,) int64
    seed      (M,) int64, of the noise
    ========  =========================================================================================
    """
    if not draws:
        return {}
    count = max(len(draw.chunks) for draw in draws)
    out: Columns = {
        "row": np.array([draw.row for draw in draws], np.int64),
        "chunks": np.stack([_filled(np.moveaxis(draw.chunks, 0, -1), count) for draw in draws]),
        "selected": np.array([draw.selected for draw in draws], np.int64),
        "seed": np.array([draw.seed for draw in draws], np.int64),
    }
    out["chunks"] = np.ascontiguousarray(np.moveaxis(out["chunks"], -1, 1))
    members = max((len(draw.values) for draw in draws if draw.values is not None), default=0)
    if members:
        nothing = np.full((members, count), np.nan, np.float32)
        out["values"] = np.stack([nothing if d.values is None else _filled(d.values, count) for d in draws])
    return out


def _filled(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(..., K) with NaN behind, up to `count`."""
    missing = np.full((*values.shape[:-1], count - values.shape[-1]), np.nan, np.float32)
    return np.concatenate([np.asarray(values, np.float32), missing], axis=-1)
