"""Preference pairs: what the human did, against what the policy would have done at that very observation.

Diffusion-DPO (arXiv:2311.12908): the denoising error stands for -log p of a chunk, and a frozen copy of the policy is
what the preference is measured against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.data.sidecars import read_candidates
from vla_rl.learn.bc import train_bc
from vla_rl.learn.correction_config import PreferenceConfig
from vla_rl.learn.corrections import Drivers
from vla_rl.learn.hg_dagger import HGDagger, NothingToImitateError
from vla_rl.policy.modeling_vla_rl import VLAPolicy

Batch = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Pairs:
    """M observations at which both are known.

    Attributes:
        rows: of the observations, ascending, (M,); a human drove there.
        rejected: the chunk that the policy proposed, (M, H, A).
    """

    rows: NDArray[np.int64]
    rejected: NDArray[np.float32]


def pairs(drivers: Drivers, decisions: NDArray[np.int64], proposed: NDArray[np.float32]) -> Pairs:
    """Decisions of the policy while a human drove: the human did something else.

    Args:
        drivers: who drove.
        decisions: rows at which the policy drew chunks, ascending, (D,).
        proposed: the one that it would have executed, (D, H, A).
    """
    mine = drivers.human[decisions] & drivers.session[decisions]
    return Pairs(decisions[mine], proposed[mine])


def dpo_loss(chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float) -> Tensor:
    """-log sigmoid(-beta ((e_w - e_w^ref) - (e_l - e_l^ref))), (B,): eq. 14, errors in place of log-likelihoods.

    Args:
        chosen, rejected: denoising errors of both chunks under the policy, same noise and time, (B,).
        chosen_before, rejected_before: the same under the frozen one, (B,).
        beta: how sure the preferences are, over how far the policy may move.
    """
    gained = (chosen - chosen_before) - (rejected - rejected_before)
    return -F.logsigmoid(-beta * gained)


class _PreferenceLoss(nn.Module):
    """Cloning's loss, and preference's on the rows that have a pair."""

    def __init__(self, policy: VLAPolicy, before: VLAPolicy, config: PreferenceConfig) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        self._before = [before.eval().requires_grad_(False)]  # in a list: not among the weights

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts; `rejected` (B, H, A) and `paired` (B,) come beside what cloning takes."""
        cloned = {key: value for key, value in batch.items() if key not in ("paired", "rejected")}
        loss, info = self.policy.loss(cloned)
        rows = batch["paired"].nonzero().squeeze(1)
        if not len(rows):
            return loss, {**info, "preference_loss": torch.zeros_like(loss)}
        chosen = _some(cloned, rows)
        rejected = {**chosen, "action": batch["rejected"][rows]}
        now = self._errors(self.policy, chosen, rejected)
        with torch.no_grad():
            before = self._errors(self._before[0], chosen, rejected)
        preferred = dpo_loss(*now, *before, self.config.beta).mean()
        return loss + self.config.preference * preferred, {**info, "preference_loss": preferred.detach()}

    def _errors(self, policy: VLAPolicy, chosen: Batch, rejected: Batch) -> tuple[Tensor, Tensor]:
        """Denoising errors of both chunks, (B,) each: all four of a pair with the same noise at the same time."""
        errors = []
        for batch in (chosen, rejected):
            with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
                errors.append(policy.loss(batch, "none")[0])
        return errors[0], errors[1]


def _some(batch: Batch, rows: Tensor) -> dict[str, Any]:
    """Rows of what an error depends on: observation, words, action and its padding."""
    some: dict[str, Any] = {}
    for key, value in batch.items():
        if key == "task":
            some[key] = [value[int(row)] for row in rows]
        elif key.startswith("observation.") or key in ("action", "action_is_pad", "task_tokens"):
            some[key] = value[rows]
    return some


class Preference(HGDagger):
    """HG-DAgger, and where the policy's own proposal is known: away from it, towards what the human did."""

    settings: PreferenceConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        before = self._new(self.caches).to(self.device)
        self.model = _PreferenceLoss(self.policy, before, self.settings)

    def prepare(self) -> None:
        """Find the pairs as well."""
        super().prepare()
        found = pairs(self.drivers, *self._proposals())
        if not len(found.rows):
            raise NothingToImitateError(
                "no chunk was proposed while a human drove: preference needs recorded candidates"
            )
        self.rejected = found.rejected
        self.slot = np.full(len(self.drivers.human), -1)
        self.slot[found.rows] = np.arange(len(found.rows))

    def _proposals(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and chunks of all decisions of the sessions."""
        rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        chunks, first = [], 0
        for root, cache in zip(self.settings.data, self.caches, strict=True):
            table = read_candidates(Path(root))
            if table is not None:
                rows.append(table.rows + first)
                chunks.append(table.chunks[np.arange(len(table.rows)), np.maximum(table.selected, 0)])
            first += len(cache)
        shape = (0, self.settings.horizon, self.data.action_dim)
        return np.concatenate(rows), np.concatenate(chunks) if chunks else np.zeros(shape, np.float32)

    def _shares(self) -> NDArray[np.float64]:
        """`pairs` of each batch from observations with a pair."""
        shares, paired = super()._shares(), self._slots() >= 0
        even = self._balanced(paired.astype(np.float64))
        return (1.0 - self.settings.pairs) * shares + self.settings.pairs * even

    def _slots(self) -> NDArray[np.int64]:
        """Place of each kept frame's pair, -1 where there is none, (len(data),)."""
        return self.slot[self._rows()]

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items with the rejected chunk where there is one."""
        batch = super()._items(indices)
        slot = self._slots()[indices]
        device = batch["action"].device
        rejected = torch.from_numpy(self.rejected[np.maximum(slot, 0)]).to(device)
        return {**batch, "rejected": rejected, "paired": torch.from_numpy(slot >= 0).to(device)}

    def remembered(self) -> Mapping[str, Any]:
        """How many pairs there are."""
        return {**super().remembered(), "pairs": len(self.rejected)}


def train_preference(config: PreferenceConfig, progress: bool = True) -> dict[str, Any]:
    """Train a policy on corrections and preferences, or go on training one; see `train_bc`."""
    return train_bc(config, progress, Preference)
