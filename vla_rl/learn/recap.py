"""RECAP (pi*0.6, arXiv:2511.14759): a policy told which chunks were better than expected, and asked for those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.learn.advantages import carried
from vla_rl.learn.bc import train_bc
from vla_rl.learn.corrections import Drivers
from vla_rl.learn.extraction import PolicyExtraction
from vla_rl.learn.extraction_config import RecapConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig


def better_than_expected(advantage: NDArray[np.float32], owner: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """The best `share` of each set's advantages, (N,): the threshold is a quantile, not a number of value.

    Args:
        advantage: (N,).
        owner: number of each row's set, (N,).
        share: in [0, 1).
    """
    found = np.zeros(len(advantage), bool)
    for number in np.unique(owner):
        mine = owner == number
        found[mine] = advantage[mine] > np.quantile(advantage[mine], 1.0 - share)
    return found


def _require_reward(paid: str | None, asked: str) -> None:
    """Raise ValueError where steps of one reward would be added to a critic's values of another.

    Args:
        paid: tag of the reward that the critic learned from, "" for next.reward; None where it does not say.
        asked: tag that the run was given, "" for next.reward.
    """
    if paid is None or paid == asked:
        return
    names = [f"the reward '{tag}'" if tag else "next.reward" for tag in (paid, asked)]
    advice = f"--reward {paid}" if paid else "leave out --reward"
    raise ValueError(f"recap: the critic's values are of {names[0]}, not of {names[1]}: {advice}")


class Recap(PolicyExtraction[RecapConfig]):
    """All frames are imitated, each with the word whether it was better; a human's always were."""

    def prepare(self) -> None:
        """Label every frame."""
        judged, settings = self.judged(), self.settings
        _require_reward(judged.folder.card.get("training", {}).get("reward"), settings.reward)
        rows, advantage = judged.of_steps()
        owner = np.searchsorted(judged.offsets, np.arange(judged.offsets[-1]), side="right") - 1
        good = better_than_expected(advantage, owner[rows], settings.positive)
        label = carried(rows, good.astype(np.float32), self._starts(), 0.0) > 0
        label |= np.concatenate([each.intervention for each in judged.sets])
        if settings.trust_demonstrations:
            flawless = np.array([bool(each.success.all() and not each.intervention.any()) for each in judged.sets])
            label |= flawless[owner]
        self.better = label[self._rows()]
        drivers = Drivers.of(self.caches, 0)
        self.ends = np.where(drivers.human, drivers.ends, len(drivers.human))

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items with their label; a human's chunk, which counts as better, is padded from where he let go on."""
        batch = super()._items(indices)
        last = self.ends[self._rows()[indices]] - 1
        past = torch.from_numpy(self.data.ahead(indices) > last[:, None]).to(batch["action_is_pad"].device)
        label = torch.from_numpy(self.better[indices])
        return {**batch, "action_is_pad": batch["action_is_pad"] | past, "advantage": label}

    def _adapted(self, config: VLAConfig) -> VLAConfig:
        """With the condition, its dropout and its guidance."""
        settings = self.settings
        config = super()._adapted(config)
        config.advantage, config.context_dropout = True, settings.dropout
        config.guidance_scale = settings.guidance
        return config

    def remembered(self) -> Mapping[str, Any]:
        """Share of frames that count as better."""
        return {"better_share": float(self.better.mean())}


def train_recap(config: RecapConfig, progress: bool = True) -> dict[str, Any]:
    """Train an advantage-conditioned policy, or go on training one; see `train_bc`."""
    return train_bc(config, progress, Recap)
