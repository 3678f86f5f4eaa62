"""What the head is told of a context, and what it is led away from: context dropout, and advantage conditioning."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vla_rl.policy.context import Features


def without_content(features: Features, null: Tensor) -> Features:
    """A context that says nothing, of the same shape; `null` (2, D) stands for every token and the pooled vector."""
    tokens, pooled = null
    return replace(features, tokens=tokens.expand_as(features.tokens), pooled=pooled.expand_as(features.pooled))


def dropped(features: Features, null: Tensor, share: float) -> Features:
    """The context without content for a share of the observations (classifier-free guidance, arXiv:2207.12598)."""
    drop = torch.rand(len(features.pooled), 1, device=null.device) < share
    empty = without_content(features, null)
    tokens = torch.where(drop.unsqueeze(-1), empty.tokens, features.tokens)
    return replace(features, tokens=tokens, pooled=torch.where(drop, empty.pooled, features.pooled))


class AdvantageCondition(nn.Module):
    """Features, and one of two learned vectors added to them for the head alone: critics read what they always did.

    RECAP (arXiv:2511.14759): the policy is told whether a chunk was better than expected, and asked for a better one.

    Args:
        width: of tokens and pooled vector.
        dropout: share of the observations that training tells nothing; that is what guidance leads away from.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.vectors = nn.Parameter(0.02 * torch.randn(2, width))

    def forward(self, features: Features, better: Tensor | None = None) -> Features:
        """Features that say "better" where `better` (B,) is true or None, else "not better"."""
        count, device = len(features.pooled), features.pooled.device
        index = torch.ones(count, device=device) if better is None else better.to(device)
        shift = self.vectors[index.long()]
        if self.training:
            shift = shift * (torch.rand(count, 1, device=device) >= self.dropout)
        return replace(features, pooled=features.pooled + shift, tokens=features.tokens + shift.unsqueeze(1))
