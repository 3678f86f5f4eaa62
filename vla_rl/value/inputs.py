"""What critics see of an observation: features, state and goal, normalised each by its own statistics, as one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vla_rl.policy.normalize import ACTION, CLIP, Affine, MissingStatisticsError, Stats, compute_stats, summary

FEATURES, GOAL, CHUNK = "features", "goal", "chunk"
USUAL = 0.99  # share of the training rows that count as usual
AXES = 256  # of greatest variance that a distance looks along: all of them, for most encoders
SHRINKAGE = 0.01  # variance added along every axis, so that axes which hardly vary do not decide alone


def critic_stats(
    features: NDArray[Any] | None,
    state: NDArray[Any] | None,
    chunks: NDArray[Any] | None = None,
    valid: NDArray[Any] | None = None,
    relative: Sequence[bool] = (),
    goal: NDArray[Any] | None = None,
) -> Stats:
    """Statistics of what a critic reads, for `set_stats`.

    Args:
        features: (N, D), or None or D = 0 where there are none.
        state: (N, S), data units, likewise.
        chunks: (N, h, A) executed actions, data units; None for a state value.
        valid: (N, h), false where a chunk is padded; None where it never is.
        relative: see `CriticConfig`.
        goal: (N, G).
    """
    given = {FEATURES: features, "state": state, GOAL: goal}
    stats = {name: summary(rows) for name, rows in given.items() if rows is not None and rows.shape[-1]}
    first = next(iter(stats))
    stats[first] |= _usual(np.asarray(given[first], dtype=np.float64), stats[first])
    if chunks is not None:
        mask = list(relative) or [False] * chunks.shape[-1]
        is_pad = None if valid is None else ~np.asarray(valid, dtype=bool)
        stats[CHUNK] = compute_stats(state, chunks, is_pad, mask)[ACTION]
    return stats


def _usual(rows: NDArray[Any], stats: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """What `ObservationInput.distance` compares with, from rows (N, D): whitening (D, axes), usual distance ()."""
    affine = Affine((rows.shape[-1],), "mean_std")
    affine.set_stats(stats)
    spread = affine.normalize(torch.from_numpy(rows)).double()
    variance, axes = torch.linalg.eigh(spread.mT @ spread / len(spread))
    whitening = (axes / (variance + SHRINKAGE).sqrt())[:, -AXES:]
    usual = _rms(spread @ whitening).quantile(USUAL)
    return {"whitening": whitening.float().numpy(), "usual": usual.float().numpy()}


def _rms(rows: Tensor) -> Tensor:
    """Root mean square of each row, (..., D) to (...)."""
    return rows.square().mean(-1).sqrt()


def plain_stats(**shapes: Sequence[int]) -> Stats:
    """Statistics that change nothing (mean 0, spread 1), by name of the input and its shape."""
    return {
        name: {"mean": np.zeros(shape, np.float32), "std": np.ones(shape, np.float32)} for name, shape in shapes.items()
    }


def fill(part: Affine, stats: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Give a normaliser its statistics.

    Raises:
        MissingStatisticsError: there are none of that name.
        ValueError: they do not fit, by name.
    """
    if name not in stats:
        raise MissingStatisticsError(
            f"no statistics for the critic's '{name}'; there are: {', '.join(stats) or 'none'}"
        )
    try:
        part.set_stats(stats[name])
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from None


class ObservationInput(nn.Module):
    """Features, state and goal to one normalised row.

    Args:
        sizes: name to size, in the row's order; those of size 0 are left out.
    """

    usual: Tensor
    whitening: Tensor

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.sizes = {name: size for name, size in sizes.items() if size}
        self.first = next(iter(self.sizes))
        self.register_buffer("usual", torch.zeros(()))
        size = self.sizes[self.first]
        self.register_buffer("whitening", torch.zeros(size, min(size, AXES)))
        self.parts = nn.ModuleDict({name: Affine((size,), "mean_std") for name, size in self.sizes.items()})

    @property
    def size(self) -> int:
        """Numbers in the row."""
        return sum(self.sizes.values())

    @property
    def ready(self) -> bool:
        """Whether there are statistics; synchronises with the device."""
        return all(part.ready for part in self._affine().values())

    def set_stats(self, stats: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over statistics by name; see `critic_stats`."""
        for name, part in self._affine().items():
            fill(part, stats, name)
        for name in ("usual", "whitening"):
            buffer: Tensor = getattr(self, name)
            buffer.copy_(torch.as_tensor(stats[self.first].get(name, 0.0)))

    def distance(self, **given: Tensor | None) -> Tensor:
        """How far off the training data an observation is, (B,).

        The Mahalanobis distance of its first input, features where there are any, over that of the training rows at
        99%: above 1 is unusual. NaN where the statistics do not say what is usual.
        """
        rows = self._checked(self.first, given.get(self.first)).float()
        far = _rms(self._affine()[self.first].normalize(rows) @ self.whitening)
        return torch.where(self.usual > 0, far / self.usual, torch.nan)

    def forward(self, **given: Tensor | None) -> Tensor:
        """Inputs (B, size) by name to the row (B, sum of sizes), each number bounded by 10 spreads.

        Raises:
            ValueError: an input is missing or has another size; both sides are named.
        """
        rows = []
        for name, part in self._affine().items():
            rows.append(part.normalize(self._checked(name, given.get(name)).float()).clamp(-CLIP, CLIP))
        return torch.cat(rows, dim=-1)

    def _checked(self, name: str, rows: Tensor | None) -> Tensor:
        if rows is None or rows.ndim != 2 or rows.shape[-1] != self.sizes[name]:
            got = "nothing" if rows is None else tuple(rows.shape)
            raise ValueError(f"the critic reads {name} of shape (B, {self.sizes[name]}), and was given {got}")
        return rows

    def _affine(self) -> dict[str, Affine]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Affine)}
