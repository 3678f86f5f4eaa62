"""PVP (Peng et al., Learning from Active Human Involvement through Proxy Value Propagation, NeurIPS 2023), with chunks.

No reward: a human's chunk is worth 1, the one it overruled -1, and time differences carry both to where nobody
intervened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critics import Loss, Needs, mean_value
from vla_rl.learn.qc import QC
from vla_rl.learn.td import regression


class PVP(QC):
    """J = J_PV + J_TD: |Q(s, a_h) - 1|^2 + |Q(s, a_n) + 1|^2 where a human drove; y = gamma^n max_a' Qbar(s', a')."""

    needs_candidates: ClassVar[Needs] = "both"
    pessimism: ClassVar[str] = "mean"
    limits: ClassVar[tuple[float, float] | None] = (-1.2, 1.2)

    def losses(self, batch: ChunkBatch) -> Loss:
        """Time differences without rewards everywhere, proxy values where a human drove."""
        out, unpaid = self.outputs(batch), replace(batch, reward=torch.zeros_like(batch.reward))
        td, _ = self.fit_next(out, unpaid, self.following(batch))
        proxy = self.proxy_loss(batch, out)
        info = {"td_loss": td.detach(), "proxy_loss": proxy.detach(), "q": mean_value(self.critic, out)}
        return td + proxy, info

    def proxy_loss(self, batch: ChunkBatch, out: Tensor) -> Tensor:
        """Misfit of the human's chunks to 1 and of one of the policy's to -1, over all rows; 0 where no human drove."""
        assert batch.candidates is not None
        human = batch.human.float() * batch.weight
        rows = torch.arange(len(batch), device=human.device)
        drawn = batch.candidates[rows, torch.randint(batch.candidates.shape[1], (len(batch),), device=human.device)]
        context = self.critic.embed(batch.features, batch.state)
        novice = self.critic.logits(context, drawn.unsqueeze(1)).squeeze(2)
        one = torch.ones_like(human)
        head = self.critic.head
        return regression(head, out, one, human) + regression(head, novice, -one, human)
