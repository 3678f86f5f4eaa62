"""ChunkCritic: an ensemble of E that values chunks of actions. One context serves any number of candidates.

Shapes: B observations, K chunks for each, H actions a chunk of which the first h (`window`) are valued, E members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.policy.normalize import CLIP, Affine, MissingStatisticsError
from vla_rl.value.config import CriticConfig
from vla_rl.value.encoders import make_chunk_encoder
from vla_rl.value.heads import make_head
from vla_rl.value.inputs import CHUNK, ObservationInput, fill
from vla_rl.value.layers import EnsembleLinear, EnsembleNorm, layer


@dataclass(frozen=True, eq=False)
class CriticContext:
    """All that an ensemble needs of B observations, whatever the number of chunks.

    Attributes:
        hidden: (E, B, W).
        base: what relative actions are relative to, (B, 1, 1, A), 0 for the others.
    """

    hidden: Tensor
    base: Tensor


class ChunkCritic(nn.Module):
    """Q(observation, chunk): an MLP with LayerNorm over both.

    The first layer is the sum of what it makes of the observation and of what it makes of the chunk, so that the former
    is computed once for all candidates. Members share nothing but the statistics.

    Args:
        config: shapes and choices. The critic has no statistics yet: `set_stats`, or load a checkpoint.
    """

    relative: Tensor

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        members, width = config.ensemble, config.width
        self.config = config
        self.head = make_head(config.head, config.support)
        self.observation = ObservationInput(features=config.feature_dim, state=config.state_dim)
        self.chunk = Affine((config.window, config.action_dim), "mean_std")
        mask = config.relative or (False,) * config.action_dim
        self.register_buffer("relative", torch.tensor(mask, dtype=torch.float32), persistent=False)
        self.context = EnsembleLinear(members, self.observation.size, width)
        self.encoder = make_chunk_encoder(config)
        self.norm = EnsembleNorm(members, width)
        self.trunk = nn.Sequential(*(layer(members, width, width) for _ in range(config.depth - 1)))
        self.out = EnsembleLinear(members, width, self.head.size)
        self._usable = False

    def set_stats(self, stats: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the statistics of features, state and chunks, as `critic_stats` returns them.

        Raises:
            MissingStatisticsError: one is missing.
            ValueError: one does not fit, by name.
        """
        self.observation.set_stats(stats)
        fill(self.chunk, stats, CHUNK)

    def require(self) -> None:
        """Raise MissingStatisticsError where there are no statistics: numbers would mean nothing."""
        if not self._usable and not (self.observation.ready and self.chunk.ready):
            raise MissingStatisticsError("the critic has no statistics: call set_stats or load a trained checkpoint")
        self._usable = True

    def embed(self, features: Tensor | None, state: Tensor | None) -> CriticContext:
        """Everything about observations that does not depend on chunks.

        Args:
            features: (B, D); None where the critic reads none.
            state: (B, S), data units; None where there is none.

        Raises:
            MissingStatisticsError: there are no statistics.
            ValueError: an input is missing or has another size; both sides are named.
        """
        self.require()
        hidden = self.context(self.observation(features=features, state=state))
        return CriticContext(hidden, self._base(state, hidden.shape[1]))

    def logits(self, context: CriticContext, chunks: Tensor) -> Tensor:
        """The head's raw outputs (E, B, K, size) for chunks (B, K, H, A) in data units; actions beyond h do not count.

        They are float32, whatever autocast does on the way: they stand for values in the units of returns.

        Raises:
            ValueError: chunks have another shape; both sides are named.
        """
        observations, candidates = self._checked(context, chunks)
        seen = chunks[..., : self.config.window, :].float() - context.base
        seen = self.chunk.normalize(seen).clamp(-CLIP, CLIP)
        encoded = self.encoder(seen.flatten(0, 1)).unflatten(1, (observations, candidates))
        met = (encoded + context.hidden.unsqueeze(2)).flatten(1, 2)
        out: Tensor = self.out(self.trunk(F.gelu(self.norm(met)))).float()
        return out.unflatten(1, (observations, candidates))

    def value(self, context: CriticContext, chunks: Tensor) -> Tensor:
        """Expected returns (E, B, K) of chunks (B, K, H, A)."""
        return self.head.mean(self.logits(context, chunks))

    def variance(self, context: CriticContext, chunks: Tensor) -> Tensor:
        """Variances of the return (E, B, K) as each member sees it; see `Head.variance`."""
        return self.head.variance(self.logits(context, chunks))

    def quantile(self, context: CriticContext, chunks: Tensor, tau: float) -> Tensor:
        """Returns (E, B, K) that are not reached with probability tau; see `Head.quantile`."""
        return self.head.quantile(self.logits(context, chunks), tau)

    def distance(self, features: Tensor | None, state: Tensor | None = None) -> Tensor:
        """How far off the training data observations are, (B,): above 1 is unusual; see `ObservationInput.distance`."""
        self.require()
        return self.observation.distance(features=features, state=state)

    def _base(self, state: Tensor | None, batch: int) -> Tensor:
        """(B, 1, 1, A): the state in the dimensions whose actions are relative, else 0."""
        base = self.relative.new_zeros(batch, self.config.action_dim)
        if state is not None and any(self.config.relative):
            shared = min(state.shape[-1], self.config.action_dim)
            base[:, :shared] = state[:, :shared].float() * self.relative[:shared]
        return base[:, None, None, :]

    def _checked(self, context: CriticContext, chunks: Tensor) -> tuple[int, int]:
        """B and K of chunks that fit."""
        config, batch = self.config, context.hidden.shape[1]
        fits = chunks.ndim == 4 and len(chunks) == batch and chunks.shape[-1] == config.action_dim
        if not fits or chunks.shape[-2] < config.window:
            raise ValueError(
                f"the critic values chunks ({batch}, K, {config.window} or more, {config.action_dim}), "
                f"and was given {tuple(chunks.shape)}"
            )
        return batch, chunks.shape[1]
