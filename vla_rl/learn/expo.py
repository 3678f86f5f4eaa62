"""EXPO (Dong et al., arXiv:2507.07986) over chunks: a small edit of the policy's chunk, and the best of both.

The policy itself is never pushed along the critic's gradient, only the edits are; what acts, and what is backed up, is
the best by Q among the policy's chunks and the edited ones.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vla_rl.data.transitions import ChunkBatch
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.critics import Loss, Needs
from vla_rl.learn.qc import QC
from vla_rl.learn.td import Following, best_of_n, frozen
from vla_rl.policy.weights import CheckpointError, load_weights
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import ObservationInput
from vla_rl.value.state_value import StateValue

EDIT = "edit.safetensors"


class EditActor(nn.Module):
    """A Gaussian squashed by tanh: features, state and a normalised chunk to an edit of it, at most `scale` a number.

    Args:
        critic: whose inputs, statistics and size it shares.
        scale: largest edit, in spreads of the action.
    """

    def __init__(self, critic: ChunkCritic, scale: float) -> None:
        super().__init__()
        config, self.scale = critic.config, scale
        self.observation = ObservationInput(features=config.feature_dim, state=config.state_dim)
        self.observation.load_state_dict(critic.observation.state_dict())
        size = config.window * config.action_dim
        widths = [self.observation.size + size, *[config.width] * config.depth]
        layers = [nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU()) for a, b in pairwise(widths)]
        last = nn.Linear(config.width, 2 * size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*layers, last)

    def forward(self, features: Tensor, state: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Edits (B, K, h, A) of normalised chunks (B, K, h, A), and their log-density per number, (B, K)."""
        seen = self.observation(features=features, state=state).unsqueeze(1).expand(-1, chunks.shape[1], -1)
        mean, spread = self.body(torch.cat([seen, chunks.flatten(2)], -1)).chunk(2, -1)
        spread = spread.clamp(-5.0, 1.0)
        noise = torch.randn_like(mean)
        raw = mean + spread.exp() * noise
        squash = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))  # log(1 - tanh^2)
        density = (-0.5 * noise.square() - spread - 0.5 * math.log(2.0 * math.pi) - squash).mean(-1)
        return self.scale * raw.tanh().unflatten(-1, chunks.shape[2:]), density

    def edited(self, critic: ChunkCritic, features: Tensor, state: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks (B, K, H, A) in data units with the critic's window edited, (B, K, h, A), and the log-density."""
        base = critic.embed(features, state).base
        normal = critic.chunk.normalize(chunks[..., : critic.config.window, :] - base)
        edits, density = self(features, state, normal)
        return critic.chunk.denormalize(critic.chunk.clip(normal + edits)) + base, density


class Expo(QC):
    """QC whose N chunks are the policy's and their edits; the edits climb the ensemble's mean Q, with entropy."""

    needs_candidates: ClassVar[Needs] = "both"
    pessimism: ClassVar[str] = "random-subset-min"

    def __init__(self, config: CriticRunConfig, critic: ChunkCritic, value: StateValue | None) -> None:
        super().__init__(config, critic, value)
        self.edit = EditActor(critic, config.edit)

    def losses(self, batch: ChunkBatch) -> Loss:
        """The critic's loss and the edits'."""
        loss, info = super().losses(batch)
        edits = self.edit_loss(batch)
        return loss + edits, {**info, "edit_loss": edits.detach()}

    def save(self, folder: Path) -> None:
        """The edits belong to the critic."""
        save_edit(folder, self.edit)

    def edit_loss(self, batch: ChunkBatch) -> Tensor:
        """Mean of alpha log pi(e | s, a) - Q(s, a + e), a one of the policy's chunks."""
        candidates = batch.candidates
        assert candidates is not None
        chosen = candidates[:, torch.randint(candidates.shape[1], (1,), device=candidates.device)]
        with frozen(self.critic):
            edited, density = self.edit.edited(self.critic, batch.features, batch.state, chosen)
            q = self.critic.value(self.critic.embed(batch.features, batch.state), edited).mean(0)
        return (self.config.edit_entropy * density - q).mean()

    @torch.no_grad()
    def following(self, batch: ChunkBatch) -> Following:
        """The best of the policy's next chunks and their edits."""
        chunks = self.drawn(batch.next_candidates)[..., : self.critic.config.window, :]
        edited, _ = self.edit.edited(self.target, batch.next_features, batch.next_state, chunks)
        context = self.target.embed(batch.next_features, batch.next_state)
        out = self.target.logits(context, torch.cat([chunks, edited], 1))
        return best_of_n(self.target.head, out, self.aggregate)


def save_edit(folder: Path, actor: EditActor) -> None:
    """Write the edits beside a critic."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in actor.state_dict().items()}
    save_file(weights, folder / EDIT, metadata={"scale": repr(actor.scale)})


def load_edit(folder: Path, critic: ChunkCritic) -> EditActor | None:
    """The edits beside a critic, on its device; None where there are none.

    Raises:
        CheckpointError: the file is no such thing, or of another critic.
    """
    path = folder / EDIT
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            scale = float((file.metadata() or {})["scale"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no edits of chunks ({str(error).splitlines()[0]})") from None
    actor = EditActor(critic, scale)
    load_weights(actor, path)
    return actor.to(next(critic.parameters()).device).eval()
