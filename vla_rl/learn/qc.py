"""Q-chunking (Li et al., arXiv:2507.07969): TD over chunks, backed up by the best of N chunks of the policy."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critics import CriticAlgorithm, Loss, Needs, mean_value
from vla_rl.learn.td import Following, best_of_n


class QC(CriticAlgorithm):
    """y = r + gamma^n Qbar(s', argmax_{a' of N policy chunks} Qbar(s', a')); the mean of an ensemble decides."""

    needs_candidates: ClassVar[Needs] = "next"
    pessimism = "mean"

    def losses(self, batch: ChunkBatch) -> Loss:
        """Regression on the backed-up target."""
        out = self.outputs(batch)
        loss, target = self.fit_next(out, batch, self.following(batch))
        info = {"q_loss": loss.detach(), "q": mean_value(self.critic, out), "target": target.mean()}
        return loss, info

    @torch.no_grad()
    def following(self, batch: ChunkBatch) -> Following:
        """What the target says of the next observation under the policy's chunks there."""
        chunks, head = self.drawn(batch.next_candidates), self.target.head
        out = self.target.logits(self.target.embed(batch.next_features, batch.next_state), chunks)
        if self.config.backup == "max":
            return best_of_n(head, out, self.aggregate)
        return Following(out.transpose(1, 2).flatten(0, 1), self.aggregate(head.mean(out)).mean(-1))

    def drawn(self, candidates: Tensor | None) -> Tensor:
        """`samples` of the candidates (B, K, H, A), the same ones for all rows; all where there are no more."""
        assert candidates is not None
        count = candidates.shape[1]
        if self.config.samples >= count:
            return candidates
        chosen = torch.randperm(count, device=candidates.device)[: self.config.samples]
        return candidates[:, chosen]
