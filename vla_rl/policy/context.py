"""Context: what a backbone made of one batch of observations. Backbones: observations in, context out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Inputs:
    """Prepared observations of a batch: To past frames, the newest last.

    Attributes:
        images: camera to (B, To, 3, H, W), uint8 or float in [0, 1].
        state: normalised state (B, To, S), None where the policy uses none.
        task: one instruction an observation, B of them; empty where `task_tokens` stands in.
        task_tokens: word hashes (B, L) int64, 0 is padding; None where `task` stands in.
    """

    images: Mapping[str, Tensor]
    state: Tensor | None
    task: Sequence[str]
    task_tokens: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Looks:
    """Where the attention queries of one camera look, newest frame.

    Attributes:
        logits: attention before the softmax, (B, Q, h, w).
        points: expected coordinates, (B, Q, 2): x right, y down, -1..1.
    """

    logits: Tensor
    points: Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """What a backbone returns.

    Attributes:
        tokens: (B, S, D).
        pooled: (B, D).
        looks: camera to where its queries look.
        mask: (B, S), true for tokens that count; None where all do.
    """

    tokens: Tensor
    pooled: Tensor
    looks: Mapping[str, Looks] = field(default_factory=dict)
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Context:
    """One encoding of a batch of observations, from which any number of chunks is sampled.

    Attributes:
        features: tokens, pooled (what critics read), looks and mask.
        state: newest state in data units, (B, S), None where there is none.
        batched: whether the observations came as a batch; else B is 1, and `sample` drops it.
    """

    features: Features
    state: Tensor | None
    batched: bool = True

    @property
    def pooled(self) -> Tensor:
        """One vector an observation, (B, D)."""
        return self.features.pooled


class Backbone(Protocol):
    """Observations to context tokens of width `width`; an nn.Module."""

    width: int

    def __call__(self, inputs: Inputs) -> Features:
        """Encode a batch of observations."""
