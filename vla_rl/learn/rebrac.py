"""TD3+BC (Fujimoto and Gu, arXiv:2106.06860) and ReBRAC (Tarasov et al., arXiv:2305.09836), with chunks for actions.

Distances between chunks are mean squares over their actions and numbers, in spreads of the data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import override

import torch
from torch import Tensor, nn

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.critics import CriticAlgorithm, Loss, mean_value
from vla_rl.learn.td import Following, follow, frozen, target_network
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import ObservationInput
from vla_rl.value.state_value import StateValue


def distance(chunks: Tensor, data: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference of normalised chunks (B, h, A), over valid actions (B, h), (B,)."""
    each = (chunks - data).square().mean(-1)
    return (each * valid).sum(-1) / valid.sum(-1).clamp(min=1)


def actor_loss(q: Tensor, imitation: Tensor, weight: Tensor) -> Tensor:
    """Mean of weight * imitation - Q / mean|Q|, (B,) each: TD3+BC's eq. 3 over its lambda, ReBRAC's eq. 4."""
    return (weight * imitation - q / q.detach().abs().mean().clamp(min=1e-6)).mean()


class ChunkActor(nn.Module):
    """A deterministic policy: features and state to one normalised chunk inside the data's range.

    Args:
        critic: whose inputs, statistics and size it shares.
    """

    low: Tensor
    high: Tensor

    def __init__(self, critic: ChunkCritic) -> None:
        super().__init__()
        config = critic.config
        self.shape = (config.window, config.action_dim)
        self.observation = ObservationInput(features=config.feature_dim, state=config.state_dim)
        self.observation.load_state_dict(critic.observation.state_dict())
        widths = [self.observation.size, *[config.width] * (config.depth + 1)]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.body = nn.Sequential(*layers, nn.Linear(config.width, config.window * config.action_dim))
        self.register_buffer("low", critic.chunk.low.clone())
        self.register_buffer("high", critic.chunk.high.clone())

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """(B, D) and (B, S) to (B, h, A), in the critic's normalised units."""
        raw = self.body(self.observation(features=features, state=state)).unflatten(-1, self.shape)
        return self.low + (self.high - self.low) * raw.sigmoid()


class ReBRAC(CriticAlgorithm):
    """y = r + gamma^n (min Qbar(s', a') - beta |a' - a'_data|^2), a' = pibar(s') + clipped noise; a delayed actor.

    `td3bc` is this with beta = 0.
    """

    needs_next_chunk = True

    def __init__(self, config: CriticRunConfig, critic: ChunkCritic, value: StateValue | None) -> None:
        super().__init__(config, critic, value)
        self.actor = ChunkActor(critic)
        self.actor_target = target_network(self.actor)

    def losses(self, batch: ChunkBatch) -> Loss:
        """The critic's loss, and in every `actor_delay`-th step the actor's."""
        out = self.outputs(batch)
        loss, target = self.fit_next(out, batch, self.following(batch))
        info = {"q_loss": loss.detach(), "q": mean_value(self.critic, out), "target": target.mean()}
        if int(self.steps) % self.config.actor_delay == 0:
            loss = loss + self.policy_loss(batch)
        return loss, info

    @torch.no_grad()
    def following(self, batch: ChunkBatch) -> Following:
        """What the target says of the target actor's smoothed and clipped chunk, less ReBRAC's penalty."""
        config, critic = self.config, self.target
        chunk = self.actor_target(batch.next_features, batch.next_state)
        limit = 2.5 * config.actor_noise
        chunk = critic.chunk.clip(chunk + (config.actor_noise * torch.randn_like(chunk)).clamp(-limit, limit))
        context = critic.embed(batch.next_features, batch.next_state)
        chunks = critic.chunk.denormalize(chunk.unsqueeze(1)) + context.base
        out = critic.logits(context, chunks).squeeze(2)
        value = self.aggregate(critic.head.mean(out))
        if self.needs_next_chunk:
            assert batch.next_chunk is not None
            data = critic.chunk.normalize(batch.next_chunk - context.base.squeeze(1))
            value = value - config.critic_bc * distance(chunk, data, batch.next_valid)
        return Following(out, value)

    def policy_loss(self, batch: ChunkBatch) -> Tensor:
        """Q through a critic that does not learn from it, and imitation."""
        critic = self.critic
        chunk = self.actor(batch.features, batch.state)
        with frozen(critic):
            context = critic.embed(batch.features, batch.state)
            chunks = critic.chunk.denormalize(chunk.unsqueeze(1)) + context.base
            q = self.followed(critic.value(context, chunks)).squeeze(1)
        data = critic.chunk.normalize(batch.chunk - context.base.squeeze(1))
        return actor_loss(q, distance(chunk, data, batch.valid), self.config.actor_bc * batch.weight)

    def followed(self, q: Tensor) -> Tensor:
        """What the actor goes up, of an ensemble's values (E, B, 1): the lowest, (B, 1), as in ReBRAC's own code."""
        return q.amin(0)

    def after(self, step: int) -> None:
        """Both targets follow."""
        super().after(step)
        follow(self.actor_target, self.actor, self.config.tau)


class TD3BC(ReBRAC):
    """No penalty in the target, and the actor goes up the first critic alone, as TD3's."""

    needs_next_chunk = False

    @override
    def followed(self, q: Tensor) -> Tensor:
        return q[0]
