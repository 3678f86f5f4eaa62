"""IDQL (Hansen-Estruch et al., arXiv:2304.10573): the policy's samples, reweighted by IQL's critic."""

from __future__ import annotations

import torch
from torch import Tensor

from vla_rl.learn.iql import IQL, expectile_weight
from vla_rl.learn.td import Following, regression


def implicit_weight(advantage: Tensor, loss: str, tau: float, alpha: float) -> Tensor:
    """w(s, a) = |f'(Q - V)| / |Q - V|, what the loss f of V says the improved policy is: mu(a|s) w(s, a) (table 1).

    Args:
        advantage: Q - V, (...,).
        loss: expectile, quantile or exponential.
        tau: of the first two.
        alpha: of the exponential.
    """
    if loss == "expectile":
        return expectile_weight(advantage, tau)
    size = advantage.abs().clamp(min=1e-3)
    if loss == "quantile":
        return expectile_weight(advantage, tau) / size
    exponent = (alpha * advantage).clamp(max=5.0)  # e^5 of the largest weight is enough to choose by
    return alpha * (exponent.exp() - 1.0).abs() / size


class IDQL(IQL):
    """IQL with a choice of V's loss; the policy's chunks are chosen by `implicit_weight`."""

    def value_loss(self, out: Tensor, q: Following, weight: Tensor) -> Tensor:
        """Any loss f whose weights are f'(u)/u makes V the same fixed point as f itself."""
        assert self.value is not None
        config, head = self.config, self.value.head
        if config.implicit == "expectile":
            return super().value_loss(out, q, weight)
        with torch.no_grad():
            implied = implicit_weight(q.value - head.mean(out), config.implicit, config.expectile, config.sharpness)
        return regression(head, out, self.as_it_is(q), implied * weight)
