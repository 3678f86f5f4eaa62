"""CQL (Kumar et al., arXiv:2006.04779) and Cal-QL (Nakamoto et al., arXiv:2303.05479) over chunks of a given policy.

The policy is a sampler (a diffusion head), whose density nobody knows. The soft maximum is therefore taken over its own
samples and uniform ones, CQL(rho) with their mixture as rho: T log E_rho exp(Q / T) - Q(s, a).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critics import Loss, mean_value
from vla_rl.learn.qc import QC
from vla_rl.value.critic import ChunkCritic, CriticContext


def calibrated(policy_values: Tensor, reference: Tensor) -> Tensor:
    """max(Q(s, a), V_mu(s)) for the policy's chunks (E, B, K) and returns (B,) of the data: Cal-QL's bound (eq. 3).

    Where Q of a policy chunk is below what the data itself earned from there, nothing pushes it further down.
    """
    return torch.maximum(policy_values, reference.unsqueeze(-1))


def conservative(sampled: Tensor, data: Tensor, temperature: float) -> Tensor:
    """T log mean_k exp(Q(s, a_k) / T) - Q(s, a), (E, B), for sampled values (E, B, K) and the data's (E, B)."""
    soft = temperature * (torch.logsumexp(sampled / temperature, -1) - math.log(sampled.shape[-1]))
    return soft - data


def uniform_chunks(critic: ChunkCritic, context: CriticContext, batch: int, count: int) -> Tensor:
    """Chunks (B, count, h, A) in data units, uniform over the range of the data's chunks."""
    low, high = critic.chunk.low, critic.chunk.high
    drawn = low + (high - low) * torch.rand(batch, count, *low.shape, device=low.device)
    return critic.chunk.denormalize(drawn) + context.base


class CQL(QC):
    """QC's TD error, and alpha times the conservative term."""

    needs_candidates = "both"
    pessimism = "min"

    def losses(self, batch: ChunkBatch) -> Loss:
        """TD + alpha * conservative."""
        config, critic = self.config, self.critic
        after = self.following(batch)
        context = critic.embed(batch.features, batch.state)
        policy, window = self.drawn(batch.candidates), critic.config.window
        noise = uniform_chunks(critic, context, len(batch), config.uniform)
        chunks = torch.cat([batch.chunk.unsqueeze(1), policy[..., :window, :], noise], 1)
        out = critic.logits(context, chunks)  # data, policy and uniform chunks in one pass
        values = critic.head.mean(out)
        of_policy = self.reference(values[..., 1 : 1 + policy.shape[1]], batch)
        sampled = torch.cat([of_policy, values[..., 1 + policy.shape[1] :]], -1)
        gap = (conservative(sampled, values[..., 0], config.temperature) * batch.weight).mean()
        td, target = self.fit_next(out[..., 0, :], batch, after)
        info = {"q_loss": td, "conservative": gap, "q": mean_value(critic, out[..., 0, :]), "target": target.mean()}
        return td + config.alpha * gap, {name: value.detach() for name, value in info.items()}

    def reference(self, policy_values: Tensor, batch: ChunkBatch) -> Tensor:
        """What the soft maximum sees of the policy's values (E, B, K): CQL pushes all of them down."""
        return policy_values


class CalQL(CQL):
    """CQL whose policy values are bounded from below by the data's returns."""

    needs_returns = True

    def reference(self, policy_values: Tensor, batch: ChunkBatch) -> Tensor:
        """Not below the return that the data got from there."""
        assert batch.mc_return is not None
        return calibrated(policy_values, batch.mc_return)
