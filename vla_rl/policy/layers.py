"""Layers: what a critic may read of a policy's encoding of an observation, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vla_rl.policy.context import Context


def pooled(context: Context) -> Tensor:
    """The backbone's one vector an observation, (B, D)."""
    return context.pooled


def tokens(context: Context) -> Tensor:
    """All context tokens, one after the other, (B, S D); those that do not count are 0."""
    found, mask = context.features.tokens, context.features.mask
    return (found if mask is None else found * mask.unsqueeze(-1)).flatten(1)


def mean_tokens(context: Context) -> Tensor:
    """The mean of the context tokens that count, (B, D)."""
    found, mask = context.features.tokens, context.features.mask
    if mask is None:
        return found.mean(1)
    return (found * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def looks(context: Context) -> Tensor:
    """The pooled vector, and behind it where every camera's queries look, (B, D + 2 Q cameras)."""
    points = [look.points.flatten(1) for look in context.features.looks.values()]
    return torch.cat([context.pooled, *points], dim=-1)


LAYERS: dict[str, Callable[[Context], Tensor]] = {
    "pooled": pooled,
    "tokens": tokens,
    "mean_tokens": mean_tokens,
    "looks": looks,
}


def features_of(context: Context, layer: str = "pooled") -> Tensor:
    """Features of a batch of observations, (B, D) float32.

    Raises:
        ValueError: no such layer; the message lists those there are.
    """
    if layer not in LAYERS:
        raise ValueError(f"unknown layer '{layer}'; there are: {', '.join(LAYERS)}")
    return LAYERS[layer](context).float()
