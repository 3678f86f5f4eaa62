"""CriticAlgorithm: what every offline algorithm for a chunk critic has: the critic, its target network, its hooks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.ranking import chunk_errors, ranking_accuracy, ranking_loss
from vla_rl.learn.td import Following, backed_up, follow, regression, target_network, td_target
from vla_rl.value.aggregate import check_ensemble, make_aggregate
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.state_value import StateValue

Loss = tuple[Tensor, dict[str, Tensor]]
Needs = Literal["", "some", "next", "both"]


class CriticAlgorithm(nn.Module):
    """A model whose call is its loss on a ChunkBatch. What is saved is the target network, an average of the weights.

    Subclasses say what they need and write `losses`.

    Args:
        config: of the run.
        critic: with statistics.
        value: with statistics; None where `has_value` is false.
    """

    needs_returns: ClassVar[bool] = False
    """Whether Monte-Carlo returns must be there."""
    needs_candidates: ClassVar[Needs] = ""
    """Where the policy's chunks must be known: "", "next" or "both"."""
    has_value: ClassVar[bool] = False
    """Whether a state value is learned beside the critic."""
    needs_next_chunk: ClassVar[bool] = False
    """Whether the chunk that was executed next must be known."""
    pessimism: ClassVar[str] = "min"
    """The algorithm's own aggregate of the target ensemble."""
    limits: ClassVar[tuple[float, float] | None] = None
    """Where values lie, for an algorithm whose values do not come from rewards."""

    steps: Tensor

    def __init__(self, config: CriticRunConfig, critic: ChunkCritic, value: StateValue | None) -> None:
        super().__init__()
        self.config, self.critic, self.value = config, critic, value
        self.target = target_network(critic)
        members = critic.config.ensemble
        self.rule = config.aggregate or (self.pessimism if members > 1 else "mean")
        check_ensemble(self.rule, members)
        self.last_target = torch.zeros(0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: ChunkBatch) -> Loss:
        """The algorithm's own loss of a batch, and its parts as detached scalars."""
        raise NotImplementedError

    def forward(self, batch: ChunkBatch) -> Loss:
        """The loss of a batch, with the ranking of candidates where the run asks for it."""
        loss, info = self.losses(batch)
        if not self.config.rank:
            return loss, info
        ranked, right = self.ranking(batch)
        return loss + self.config.rank * ranked, {**info, "rank_loss": ranked.detach(), "rank_right": right}

    def ranking(self, batch: ChunkBatch) -> tuple[Tensor, Tensor]:
        """The ranking loss over demonstrated rows, and how often the favourite is a good one."""
        assert batch.candidates is not None
        context = self.critic.embed(batch.features, batch.state)
        values = self.critic.value(context, batch.candidates)
        spread = self.critic.chunk.scale.square().mean(0).sqrt()  # over the whole chunk: its first actions hardly vary
        errors = chunk_errors(batch.candidates, batch.chunk, batch.valid, spread)
        weight = batch.weight * batch.demonstrated
        return ranking_loss(values, errors, self.config.rank_unit, weight), ranking_accuracy(values, errors, weight)

    def after(self, step: int) -> None:
        """Let the target follow."""
        self.steps += 1
        follow(self.target, self.critic, self.config.tau)

    def state(self) -> dict[str, Tensor]:
        """Targets and statistics: everything but the trained weights."""
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        return {name: tensor for name, tensor in self.state_dict().items() if name not in trained}

    def save(self, folder: Path) -> None:
        """Write what belongs to the critic's folder beside the critic: nothing, for most."""
        return

    def outputs(self, batch: ChunkBatch) -> Tensor:
        """The critic's raw outputs for the data's chunks, (E, B, size)."""
        context = self.critic.embed(batch.features, batch.state)
        return self.critic.logits(context, batch.chunk.unsqueeze(1)).squeeze(2)

    def fit(self, out: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Regression of outputs (E, B, size) on targets (B,), which are kept for a look at the support."""
        self.last_target = target.detach()
        return regression(self.critic.head, out, target, weight)

    def fit_next(self, out: Tensor, batch: ChunkBatch, after: Following) -> tuple[Tensor, Tensor]:
        """Regression of outputs (E, B, size) on what is backed up, and the mean of that, (B,)."""
        target = td_target(batch.reward, batch.discount, after.value)
        self.last_target = target.detach()
        head = self.critic.head
        wanted = backed_up(head, after.out, after.value, batch.reward, batch.discount)
        return regression(head, out, wanted, batch.weight), target

    def aggregate(self, values: Tensor) -> Tensor:
        """The run's pessimism, (E, ...) to (...); its chance is torch's, so that a resumed run draws the same."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        result: Tensor = make_aggregate(self.rule, len(values), rng=rng)(values)
        return result

    @torch.no_grad()
    def target_values(self, batch: ChunkBatch) -> Tensor:
        """The target network's values of the data's chunks, aggregated, (B,)."""
        return self.target_says(batch).value

    @torch.no_grad()
    def target_says(self, batch: ChunkBatch) -> Following:
        """The target network's outputs and aggregated values of the data's chunks."""
        context = self.target.embed(batch.features, batch.state)
        out = self.target.logits(context, batch.chunk.unsqueeze(1)).squeeze(2)
        return Following(out, self.aggregate(self.target.head.mean(out)))


def mean_value(critic: ChunkCritic, out: Tensor) -> Tensor:
    """Mean of the values that raw outputs stand for, for the log."""
    return critic.head.mean(out.detach()).mean()
