"""Best chunks: HG-DAgger, and where the policy drove the best of its chunks by a critic, where that is better enough.

What hil_serl, pvp and expo make a policy with: their critics see every chunk, executed or not, so that the parts of a
session in which nobody intervened teach something too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.rollouts import RolloutConfig, load_trajectories
from vla_rl.data.transitions import ChunkBatch, ChunkTransitions, TransitionConfig
from vla_rl.learn.bc import train_bc
from vla_rl.learn.checkpoint import resolve
from vla_rl.learn.correction_config import BestChunkConfig
from vla_rl.learn.expo import EditActor, load_edit
from vla_rl.learn.hg_dagger import HGDagger
from vla_rl.policy.folder import fingerprint
from vla_rl.value.aggregate import make_aggregate
from vla_rl.value.checkpoint import CriticFolder, load_critic, require_fit
from vla_rl.value.critic import ChunkCritic

ROWS = 512  # judged at once


class BestChunk(HGDagger):
    """Corrections and demonstrations as in HG-DAgger; decisions of the policy itself imitate the critic's choice."""

    settings: BestChunkConfig

    def prepare(self) -> None:
        """Ask the critic about every decision of the sessions."""
        self._weigh()
        config = self.settings
        folder = load_critic(resolve(config.critic), str(self.place))
        if folder.encoder is None:
            init = resolve(config.init)
            require_fit(folder.card, policy_fingerprint=fingerprint(init), where=f"--init {config.init}")
        edit = load_edit(resolve(config.critic), folder.critic)
        torch.manual_seed(config.seed)
        rows, targets, advantage = best_chunks(folder, self._decisions(folder), config.aggregate, edit)
        rows = rows + sum(len(cache) for cache in self.caches[: -config.sessions])
        mine = ~self.drivers.human[rows] & (advantage > config.threshold)
        self.targets, self.slot = targets[mine], np.full(len(self.drivers.human), -1)
        self.slot[rows[mine]] = np.arange(int(mine.sum()))
        self.weight = np.maximum(self.weight, (self._slots() >= 0).astype(np.float32))
        self._require_sessions(
            "nobody corrected anything in these sessions, and by the critic no chunk of the policy is worth "
            f"{config.threshold:g} more than its mean: lower 'threshold', or train the critic for longer"
        )

    def _decisions(self, folder: CriticFolder) -> ChunkTransitions:
        """The sessions, with chunks that the policy draws anew."""
        config, shape = self.settings, folder.critic.config
        roots, init = config.data[-config.sessions :], resolve(config.init)
        encoder = folder.encoder or init
        reading = RolloutConfig(
            layer=shape.layer,
            stride=config.stride or shape.window,
            candidates=config.candidates,
            draw=True,
            drawn_by=str(init) if encoder != init else "",
            seed=config.seed,
        )
        sets = [load_trajectories(root, encoder, reading, device=str(self.place)) for root in roots]
        return ChunkTransitions(sets, TransitionConfig(shape.window, shape.gamma, 0, "pad", "here"))

    def _slots(self) -> NDArray[np.int64]:
        """Place of each kept frame's chosen chunk, -1 where there is none, (len(data),)."""
        return self.slot[self._rows()]

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items whose chunk is the chosen one, whole, where one was chosen."""
        batch, slot = super()._items(indices), self._slots()[indices]
        found = torch.from_numpy(slot >= 0).to(batch["action"].device)
        if not bool(found.any()):
            return batch
        wanted = torch.from_numpy(self.targets[np.maximum(slot, 0)]).to(found.device)
        batch["action"] = torch.where(found[:, None, None], wanted, batch["action"])
        batch["action_is_pad"] = batch["action_is_pad"] & ~found[:, None]
        return batch

    def remembered(self) -> Mapping[str, Any]:
        """How many of the policy's decisions have a chunk that is better enough."""
        return {**super().remembered(), "chosen": len(self.targets)}


@torch.no_grad()
def best_chunks(
    folder: CriticFolder, data: ChunkTransitions, aggregate: str, edit: EditActor | None
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The best of the policy's chunks and their edits at each decision.

    Args:
        folder: who judges.
        data: decisions with candidates.
        aggregate: the ensemble's word.
        edit: who edits; None for nobody.

    Returns:
        Rows (M,), chunks (M, H, A), and by how much each is worth more than the policy's mean, (M,).
    """
    said: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(data), ROWS):
        batch = data.batch(np.arange(first, min(first + ROWS, len(data)))).to(next(folder.critic.parameters()).device)
        said.append(_best(folder, batch, aggregate, edit))
    chunks, advantage = (torch.cat(parts).cpu().numpy() for parts in zip(*said, strict=True))
    return data.starts, chunks, advantage


def _best(folder: CriticFolder, batch: ChunkBatch, aggregate: str, edit: EditActor | None) -> tuple[Tensor, Tensor]:
    critic, chunks = folder.critic, batch.candidates
    assert chunks is not None
    offered = chunks if edit is None else torch.cat([chunks, _edited(critic, edit, batch)], 1)
    values = critic.value(critic.embed(batch.features, batch.state), offered)
    worth = make_aggregate(aggregate, len(values))(values)
    best = worth.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return offered[rows, best], worth[rows, best] - worth[:, : chunks.shape[1]].mean(1)


def _edited(critic: ChunkCritic, edit: EditActor, batch: ChunkBatch) -> Tensor:
    """The candidates with their first actions edited, (B, K, H, A); the rest shifts with the last of them."""
    assert batch.candidates is not None
    window, _ = edit.edited(critic, batch.features, batch.state, batch.candidates)
    rest = batch.candidates[..., window.shape[2] :, :]
    shift = (window - batch.candidates[..., : window.shape[2], :])[..., -1:, :]
    return torch.cat([window, rest + shift], 2)


def train_best_chunk(config: BestChunkConfig, progress: bool = True) -> dict[str, Any]:
    """Train a policy on corrections and on the critic's choices, or go on training one; see `train_bc`."""
    return train_bc(config, progress, BestChunk)
