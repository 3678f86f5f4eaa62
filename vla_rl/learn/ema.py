"""Exponential moving average of the weights: what is evaluated and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """A slow copy of the trainable weights: shadow <- d shadow + (1 - d) weight, d = min(decay, (1 + t) / (10 + t)).

    The warm-up of d keeps the random initial weights from lingering in the average. Frozen weights are left alone.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's present weights; `decay` in [0, 1), 0 follows the weights exactly."""
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights after optimiser step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        targets: list[Tensor] = [p.detach() for p in self.weights]
        torch._foreach_lerp_(self.shadow, targets, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the model carries the averaged weights; no copy is made."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, weight in enumerate(self.weights):
            weight.data, self.shadow[index] = self.shadow[index], weight.data
