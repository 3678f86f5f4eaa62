"""Implicit Q-learning (Kostrikov et al., arXiv:2110.06169) over chunks: only actions of the data are valued."""

from __future__ import annotations

import torch
from torch import Tensor

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critics import CriticAlgorithm, Loss, mean_value
from vla_rl.learn.td import Following, backed_up, regression
from vla_rl.value.heads import Head


def expectile_weight(error: Tensor, tau: float) -> Tensor:
    """|tau - 1(error < 0)|: the slope of the expectile loss, over twice the error (eq. 5)."""
    return torch.where(error < 0, 1.0 - tau, tau)


def expectile_loss(
    head: Head, out: Tensor, q: Tensor, tau: float, weight: Tensor, wanted: Tensor | None = None
) -> Tensor:
    """V's loss (eq. 5): V(s) becomes the tau-expectile of Q(s, a) over the data's actions.

    The expectile is the mean under the weights that it gives itself, so weighting any head's own loss by them makes
    that head's mean the expectile; for `mse` it is the paper's squared error.

    Args:
        head: of V.
        out: V's raw outputs, (1, B, size).
        q: target values of the data's chunks, (B,), without gradient.
        tau: which expectile.
        weight: of each row, (B,).
        wanted: the same as `backed_up` makes it of Q's distribution; by default `q` itself.
    """
    error = q - head.mean(out.detach())
    return regression(head, out, q if wanted is None else wanted, expectile_weight(error, tau) * weight)


class IQL(CriticAlgorithm):
    """L_V: expectile of Qbar; L_Q: r + gamma^n V(s')."""

    has_value = True

    def losses(self, batch: ChunkBatch) -> Loss:
        """L_V + L_Q; neither sends gradients into the other's weights."""
        assert self.value is not None
        with torch.no_grad():
            next_v = self.value.logits(batch.next_features, batch.next_state)
        after = Following(next_v, self.value.head.mean(next_v).mean(0))
        v_loss = self.value_loss(self.value.logits(batch.features, batch.state), self.target_says(batch), batch.weight)
        out = self.outputs(batch)
        q_loss, target = self.fit_next(out, batch, after)
        info = {"q_loss": q_loss, "v_loss": v_loss, "q": mean_value(self.critic, out), "target": target.mean()}
        return q_loss + v_loss, {name: value.detach() for name, value in info.items()}

    def value_loss(self, out: Tensor, q: Following, weight: Tensor) -> Tensor:
        """How V follows Q."""
        assert self.value is not None
        return expectile_loss(self.value.head, out, q.value, self.config.expectile, weight, self.as_it_is(q))

    def as_it_is(self, q: Following) -> Tensor:
        """What V is fitted to so that it becomes Q of one chunk: nothing is paid, and nothing passes."""
        return backed_up(self.critic.head, q.out, q.value, torch.zeros_like(q.value), torch.ones_like(q.value))
