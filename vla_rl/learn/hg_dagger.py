"""HG-DAgger (arXiv:1810.02890): behaviour cloning of demonstrations and of what a human did in the policy's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.learn.bc import train_bc
from vla_rl.learn.correction_config import HGDaggerConfig
from vla_rl.learn.corrections import Drivers
from vla_rl.learn.extraction import PolicyExtraction


class NothingToImitateError(ValueError):
    """Sessions of which nothing is imitated; more episodes may change that."""


def imitated(drivers: Drivers, own: float) -> NDArray[np.float32]:
    """Weight of each row's loss, (N,): 1 for demonstrations and corrections, `own` for successes nobody touched.

    What the policy did before a takeover is what the human objected to, and after a hand-back it is not yet known to
    be right: neither is imitated.
    """
    fine = drivers.session & ~drivers.human & drivers.untouched & drivers.success
    weight = np.where(~drivers.session | drivers.human, 1.0, np.where(fine, own, 0.0))
    return weight.astype(np.float32)


class HGDagger(PolicyExtraction[HGDaggerConfig]):
    """Demonstrations and corrections, each with its share of the batches; chunks end where the human let go."""

    def prepare(self) -> None:
        """Find out who drove, and what is imitated of it."""
        self._weigh()
        self._require_sessions("nobody corrected anything in these sessions, and nothing else of them is imitated")

    def _weigh(self) -> None:
        self.drivers = Drivers.of(self.caches, self.settings.sessions)
        self.ends = self.drivers.ends
        self.weight = imitated(self.drivers, self.settings.own)[self._rows()]

    def _require_sessions(self, why: str) -> None:
        """Refuse to go on where nothing of the sessions is imitated, and say why."""
        if not (self.weight * self.drivers.session[self._rows()]).any():
            raise NothingToImitateError(why)

    def _paces(self, count: int) -> list[float]:
        """`pace` is asked of the demonstrations; the human in a session set his own."""
        return [self.settings.pace] * (count - self.settings.sessions) + [1.0] * self.settings.sessions

    def _shares(self) -> NDArray[np.float64]:
        """`share` of each batch from sessions, evenly over their frames; the rest as demonstrations always are."""
        demonstrated = super()._shares()
        session = self.drivers.session[self._rows()]
        corrected = self.weight * session
        demonstrated[session] = 0.0
        share = self.settings.share if demonstrated.any() else 1.0
        rest = (1.0 - share) * demonstrated / max(float(demonstrated.sum()), 1e-12)
        return rest + share * self._balanced(corrected.astype(np.float64))

    def _balanced(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights (N,) that sum to one, equal sums for each value of the episodes' meta that `balance` names."""
        key = self.settings.balance
        values = [str(episode.get(key, "")) if key else "" for episode in self.data.episodes]
        group = np.unique(values, return_inverse=True)[1][self.data.episode_of(np.arange(len(self.data)))]
        sums = np.bincount(group, weights)
        scaled: NDArray[np.float64] = weights / np.maximum(sums, 1e-12)[group]
        return scaled / scaled.sum()

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items whose chunk is padded from the end of its stretch on; weight stays with the frames, not the draws."""
        batch = super()._items(indices)
        last = self.ends[self._rows()[indices]] - 1
        past = torch.from_numpy(self.data.ahead(indices) > last[:, None]).to(batch["action_is_pad"].device)
        return {**batch, "action_is_pad": batch["action_is_pad"] | past, "weight": torch.ones(len(last))}

    def remembered(self) -> Mapping[str, Any]:
        """How much a human drove."""
        drivers = self.drivers
        driven = drivers.human & drivers.session
        return {"corrections": len(drivers.takeovers), "corrected_frames": int(driven.sum())}


def train_hg_dagger(config: HGDaggerConfig, progress: bool = True) -> dict[str, Any]:
    """Train a policy on corrections, or go on training one; see `train_bc`."""
    return train_bc(config, progress, HGDagger)
