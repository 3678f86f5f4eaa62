"""Ranking: a policy's chunks at demonstrated observations are worth the more, the nearer they are to what was shown.

Rollouts say little about actions: one of K similar chunks was executed, and much chance followed. Beside a
demonstration all K can be compared at once. RoboMonkey (arXiv:2506.17811) trains a verifier that way, on the order of
action errors and its margins; here the same term joins any critic's TD loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-3  # of a squared error in spreads: nearer than 3% of a spread is near enough


def chunk_errors(candidates: Tensor, chunk: Tensor, valid: Tensor, spread: Tensor) -> Tensor:
    """Mean squared distance of candidates to the executed chunk, over the actions that were executed, (B, K).

    Args:
        candidates: (B, K, H, A), H at least h.
        chunk: (B, h, A).
        valid: which of its actions were executed, (B, h).
        spread: how much each action varies in the data, (h, A) or (A,), same units.
    """
    apart = (candidates[..., : chunk.shape[1], :] - chunk.unsqueeze(1)) / spread
    counted = valid.unsqueeze(1).to(apart.dtype)
    return (apart.square().mean(-1) * counted).sum(-1) / counted.sum(-1).clamp(min=1.0)


def ranking_loss(values: Tensor, errors: Tensor, unit: float, weight: Tensor) -> Tensor:
    """Mean over rows of [(Q_k - mean Q) / unit - (mean log e - log e_k)]^2: order and margins of the errors.

    Args:
        values: of the candidates, (E, B, K).
        errors: their squared distances, (B, K).
        unit: what a candidate is worth more whose error is smaller by a factor e, in units of value.
        weight: of each row, (B,); 0 leaves it out.
    """
    log = (errors + FLOOR).log()
    wanted = log.mean(-1, keepdim=True) - log
    found = (values - values.mean(-1, keepdim=True)) / unit
    each = (found - wanted).square().mean(-1)
    return (each * weight).sum() / (weight.sum() * len(values)).clamp(min=1e-6)


@torch.no_grad()
def ranking_accuracy(values: Tensor, errors: Tensor, weight: Tensor) -> Tensor:
    """How often the ensemble's favourite has less error than the mean candidate, over rows of weight above 0."""
    best = errors.gather(-1, values.mean(0).argmax(-1, keepdim=True)).squeeze(-1)
    counted = (weight > 0).float()
    return ((best < errors.mean(-1)).float() * counted).sum() / counted.sum().clamp(min=1.0)
