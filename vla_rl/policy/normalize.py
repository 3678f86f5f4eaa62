"""Statistics as buffers: state and actions between the data set's units and the network's.

Relative actions follow the chunk convention of pi0 and UMI: every action of a chunk minus the state at its start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Stats = dict[str, dict[str, NDArray[np.float32]]]
STATE = "observation.state"
ACTION = "action"
CLIP = 10.0  # a state this many scales off says no more than "far off"


class MissingStatisticsError(ValueError):
    """A policy has no statistics for a feature, so its numbers would mean nothing."""


def relative_to(actions: NDArray[Any], state: NDArray[Any], relative: Sequence[bool]) -> NDArray[np.float32]:
    """Actions (N, H, A) minus the state (N, S) at the chunk's start, in the dimensions where `relative` is true."""
    result = np.array(actions, dtype=np.float32)
    mask = np.asarray(relative, dtype=bool)
    if mask.any():
        result[..., mask] -= np.asarray(state, dtype=np.float32)[:, None, : len(mask)][..., mask]
    return result


def summary(values: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Mean, std, q01, q99, min and max of the rows of (N, D), each (D,)."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("statistics need at least one row, and finite numbers only")
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    stats = {"mean": values.mean(0), "std": values.std(0), "q01": low, "q99": high}
    stats |= {"min": values.min(0), "max": values.max(0)}
    return {k: v.astype(np.float32) for k, v in stats.items()}


def compute_stats(
    state: NDArray[Any] | None, actions: NDArray[Any], is_pad: NDArray[Any] | None, relative: Sequence[bool]
) -> Stats:
    """Statistics of states and (partly relative) action chunks, padding left out.

    Args:
        state: (N, S), the state at each chunk's start, or None.
        actions: (N, H, A), absolute, in the data set's units.
        is_pad: (N, H), true where an action repeats the last one of an episode.
        relative: (A,), which dimensions are predicted relative to the state.

    Returns:
        What `VLAPolicy(config, stats=...)` takes: feature name to {mean, std, q01, q99, min, max}. Those of the
        actions are (H, A): a relative action spreads more the later it is due.
    """
    if state is None and any(relative):
        raise ValueError("relative actions need the state")
    chunks = relative_to(actions, state, relative) if state is not None else np.asarray(actions)
    valid = np.ones(chunks.shape[:2], dtype=bool) if is_pad is None else ~np.asarray(is_pad, dtype=bool)
    steps = [summary(chunks[keep if keep.any() else slice(None), h]) for h, keep in enumerate(valid.T)]
    stats = {ACTION: {k: np.stack([step[k] for step in steps]) for k in steps[0]}}
    return stats | ({STATE: summary(state)} if state is not None else {})


class Affine(nn.Module):
    """x -> (x - offset) / scale, bounded by what the data held. NaN until statistics are set or loaded.

    Args:
        shape: trailing shape of what is normalised.
        mode: "mean_std", or "quantile" (1% and 99% of the data become -1 and 1).
    """

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, shape: Sequence[int], mode: str) -> None:
        super().__init__()
        self.mode = mode
        for name in ("offset", "scale", "low", "high"):
            self.register_buffer(name, torch.full(tuple(shape), torch.nan))

    @property
    def ready(self) -> bool:
        """Whether there are statistics; synchronises with the device."""
        return bool(torch.isfinite(self.offset).all() and torch.isfinite(self.scale).all())

    def set_stats(self, stats: Mapping[str, Any]) -> None:
        """Take over statistics whose shape broadcasts to this module's.

        A feature that never changes has no scale: its spread counts as 1, so that it maps to 0 and back.

        Raises:
            ValueError: a statistic is missing, has another shape or is not finite.
        """
        names = ("q01", "q99") if self.mode == "quantile" else ("mean", "std")
        missing = [k for k in names if k not in stats]
        if missing:
            raise ValueError(f"statistics lack {', '.join(missing)}; there are: {', '.join(stats)}")
        first, second = (torch.as_tensor(np.asarray(stats[k]), dtype=torch.float32) for k in names)
        offset, scale = ((first + second) / 2, (second - first) / 2) if self.mode == "quantile" else (first, second)
        scale = torch.where(scale > 1e-4 * offset.abs().clamp(min=1e-2), scale, torch.ones_like(scale))
        low, high = (
            torch.as_tensor(np.asarray(stats.get(k, v)), dtype=torch.float32)
            for k, v in (("min", offset - CLIP * scale), ("max", offset + CLIP * scale))
        )
        margin = 0.1 * (high - low) + 0.1 * scale
        for name, value in (("offset", offset), ("scale", scale)):
            self._fill(name, value)
        self._fill("low", (low - margin - offset) / scale)
        self._fill("high", (high + margin - offset) / scale)

    def _fill(self, name: str, value: Tensor) -> None:
        buffer: Tensor = getattr(self, name)
        if not torch.isfinite(value).all():
            raise ValueError("statistics are not finite")
        try:
            buffer.copy_(value.expand(buffer.shape))
        except RuntimeError:
            raise ValueError(f"statistics have shape {tuple(value.shape)}, not {tuple(buffer.shape)}") from None

    def normalize(self, x: Tensor) -> Tensor:
        """Data units to the network's."""
        return (x - self.offset) / self.scale

    def denormalize(self, x: Tensor) -> Tensor:
        """The network's units to the data's."""
        return x * self.scale + self.offset

    def clip(self, x: Tensor) -> Tensor:
        """Bound normalised values by the range of the data, and a tenth more."""
        return torch.minimum(torch.maximum(x, self.low), self.high)


class Normalizer(nn.Module):
    """State and action chunks of one policy, to and from the network's units.

    Args:
        state_dim: size of the state, 0 where there is none.
        chunk: (H, A).
        relative: (A,), which action dimensions are relative to the state.
        state_norm, action_norm: "mean_std" or "quantile".
    """

    relative: Tensor

    def __init__(
        self, state_dim: int, chunk: tuple[int, int], relative: Sequence[bool], state_norm: str, action_norm: str
    ) -> None:
        super().__init__()
        self.state = Affine((state_dim,), state_norm) if state_dim else None
        self.action = Affine(chunk, action_norm)
        self.any_relative = any(relative)
        self.register_buffer("relative", torch.tensor(relative, dtype=torch.float32), persistent=False)

    def set_stats(self, stats: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over statistics by feature name, as `compute_stats` returns them.

        Raises:
            MissingStatisticsError: a feature has none.
            ValueError: they do not fit, by feature name.
        """
        for name, part in self._parts().items():
            if name not in stats:
                raise MissingStatisticsError(f"no statistics for '{name}'; there are: {', '.join(stats) or 'none'}")
            try:
                part.set_stats(stats[name])
            except ValueError as error:
                raise ValueError(f"'{name}': {error}") from None

    def require(self) -> None:
        """Raise MissingStatisticsError naming the features that have no statistics."""
        missing = [name for name, part in self._parts().items() if not part.ready]
        if missing:
            raise MissingStatisticsError(
                f"the policy has no statistics for {', '.join(missing)}: give `stats` or load a trained checkpoint"
            )

    def _parts(self) -> dict[str, Affine]:
        return ({STATE: self.state} if self.state is not None else {}) | {ACTION: self.action}

    def normalize_state(self, state: Tensor) -> Tensor:
        """(..., S) in data units to the network's, bounded."""
        assert self.state is not None
        return self.state.normalize(state).clamp(-CLIP, CLIP)

    def _base(self, state: Tensor | None, like: Tensor) -> Tensor | float:
        """What relative dimensions are relative to: (B, 1..., A)."""
        if not self.any_relative:
            return 0.0
        assert state is not None
        base = state[..., : self.relative.shape[0]] * self.relative
        return base.reshape(base.shape[0], *[1] * (like.ndim - 2), base.shape[-1])

    def normalize_action(self, actions: Tensor, state: Tensor | None) -> Tensor:
        """Chunks (B, ..., H, A) in data units to the network's; `state` is (B, S), at the chunks' start."""
        return self.action.normalize(actions - self._base(state, actions))

    def denormalize_action(self, actions: Tensor, state: Tensor | None) -> Tensor:
        """Inverse of `normalize_action`."""
        return self.action.denormalize(actions) + self._base(state, actions)
