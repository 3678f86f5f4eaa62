"""Best-of-N distillation (Digi-Q, arXiv:2502.15760): imitate the policy's best chunk, where it is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.learn.advantages import Judged
from vla_rl.learn.bc import train_bc
from vla_rl.learn.extraction import PolicyExtraction
from vla_rl.learn.extraction_config import BestOfNConfig


def best_candidates(advantage: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which of K chunks has the largest advantage, (M,), and where that clears the threshold, (M,).

    Digi-Q, eq. 6: imitating only above a threshold keeps what is merely the least bad out.

    Args:
        advantage: of each chunk, (M, K); nan for one that counts for nothing.
        threshold: least advantage.
    """
    advantage = np.where(np.isnan(advantage), -np.inf, advantage)
    best = advantage.argmax(1)
    return best, advantage[np.arange(len(best)), best] > threshold


class BestOfN(PolicyExtraction[BestOfNConfig]):
    """Frames with candidates imitate the best one, or nothing; sets without candidates are imitated as they are."""

    def prepare(self) -> None:
        """Choose targets, and share the batches between them and the demonstrations."""
        judged = self.judged(self.settings.candidates)
        offered = [each.candidates is not None for each in judged.sets]
        if not any(offered):
            raise ValueError("best_of_n needs rollouts of the policy: `vla-rl collect --candidates 8 --policy CKPT`")
        self._require_length(judged)
        rows, advantage = judged.of_candidates()
        best, chosen = best_candidates(advantage, self.settings.threshold)
        if not chosen.any():
            limit = f"{self.settings.threshold:g}; the largest advantage is {advantage.max():.3g}"
            raise ValueError(f"best_of_n: no candidate clears --threshold {limit}")
        self.rows, self.share = rows[chosen], float(chosen.mean())
        self.targets = np.stack([self._chunks(judged, int(r))[k] for r, k in zip(self.rows, best[chosen], strict=True)])
        self.slot = np.full(judged.offsets[-1], -1)
        self.slot[self.rows] = np.arange(len(self.rows))
        own = np.repeat(~np.array(offered), np.diff(judged.offsets))
        self.demonstrated = own[self._rows()]
        self.weight = (self.demonstrated | (self.slot[self._rows()] >= 0)).astype(np.float32)

    def _require_length(self, judged: Judged) -> None:
        """Raise ValueError where candidates are no chunks that the policy could imitate."""
        for root, each in zip(self.settings.data, judged.sets, strict=False):
            length = self.data.horizon if each.candidates is None else each.candidates.shape[2]
            if length != self.data.horizon:
                raise ValueError(
                    f"best_of_n: the candidates of {root} have {length} actions, --init's chunks {self.data.horizon}: "
                    "another policy drew them; record some with `vla-rl collect --candidates 8 --policy INIT`"
                )

    def _chunks(self, judged: Judged, row: int) -> NDArray[np.float32]:
        """All candidates of a row, (K, H, A)."""
        number = int(np.searchsorted(judged.offsets, row, side="right")) - 1
        each = judged.sets[number]
        assert each.candidates is not None
        return each.candidates[each.slot[row - judged.offsets[number]]]

    def _shares(self) -> NDArray[np.float64]:
        """`own_share` of each batch from the demonstrations, the rest from the targets."""
        shares, own = super()._shares(), self.settings.own_share
        parts = [(self.demonstrated, own), (~self.demonstrated, 1.0 - own)]
        for mine, share in parts:
            total = shares[mine].sum()
            if 0.0 < total < 1.0:
                shares[mine] *= share / total
        return shares / shares.sum()

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items whose chunk is the chosen candidate, whole, where one was chosen."""
        batch = super()._items(indices)
        slot = self.slot[self._rows()[indices]]
        found = torch.from_numpy(slot >= 0).to(batch["action"].device)
        wanted = torch.from_numpy(self.targets[np.maximum(slot, 0)]).to(found.device)
        batch["action"] = torch.where(found[:, None, None], wanted, batch["action"])
        batch["action_is_pad"] = batch["action_is_pad"] & ~found[:, None]
        return batch

    def remembered(self) -> Mapping[str, Any]:
        """How many decisions had a candidate that was better enough."""
        return {"distilled": len(self.rows), "distilled_share": self.share}


def train_best_of_n(config: BestOfNConfig, progress: bool = True) -> dict[str, Any]:
    """Distil a steered policy into one that needs no steering; see `train_bc`."""
    return train_bc(config, progress, BestOfN)
