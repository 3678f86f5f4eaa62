"""Weighted behaviour cloning: filtered BC, 10%BC, and advantage-weighted regression (AWR, arXiv:1910.00177)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.data.outcomes import successes
from vla_rl.data.rollouts import RETURN
from vla_rl.data.sidecars import read_column
from vla_rl.learn.advantages import carried
from vla_rl.learn.bc import train_bc
from vla_rl.learn.extraction import PolicyExtraction
from vla_rl.learn.extraction_config import AWRConfig
from vla_rl.learn.idql import implicit_weight

Floats = NDArray[np.float32]
BASELINE = 8  # chunks of the policy that a chunk is compared with where the critic ranked them


def advantage_weight(advantage: Floats, temperature: float, most: float) -> Floats:
    """exp(A / temperature), at most `most`, (N,) (AWR eq. 8; the cap as in AWAC and IQL)."""
    limit = np.log(most)
    return np.exp(np.minimum(advantage / temperature, limit)).astype(np.float32)


def best_share(score: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """The best `share` of the episodes by score (E,), one at least; those that tie with the last one are in too."""
    count = max(1, round(share * len(score)))
    return np.asarray(score >= np.sort(score)[-count])


class AdvantageWeightedCloning(PolicyExtraction[AWRConfig]):
    """Behaviour cloning, each frame times what its rule says."""

    def prepare(self) -> None:
        """Weights by the rule, on average 1 over frames that count."""
        rule = self.settings.rule
        weight = self._by_episode(rule) if rule in ("filtered", "top") else self._by_advantage()
        kept = weight[self._rows()]
        self.weight = kept / max(float(kept[kept > 0].mean()) if (kept > 0).any() else 1.0, 1e-6)

    def _by_episode(self, rule: str) -> Floats:
        """1 for frames of the episodes that are imitated, else 0, (N,)."""
        if rule == "filtered":
            chosen = np.array([told is True for cache in self.caches for told in successes(cache)])
            if not chosen.any():
                raise ValueError(f"rule filtered imitates successes, and none of {len(chosen)} episodes is one")
        else:
            chosen = best_share(self._episode_returns(), self.settings.share)
        return np.repeat(chosen, np.diff(self._starts())).astype(np.float32)

    def _episode_returns(self) -> NDArray[np.float64]:
        """What each episode earned from its start, (E,)."""
        if not self.settings.reward:
            raise ValueError("rule top ranks episodes by return: give --reward TAG (`vla-rl dataset reward`)")
        found = []
        for root, cache in zip(self.settings.data, self.caches, strict=True):
            column = read_column(Path(root), RETURN, self.settings.reward, len(cache))[0]
            found.append(column[cache.starts[:-1]])
        return np.concatenate(found).astype(np.float64)

    def _by_advantage(self) -> Floats:
        """From the critic, (N,)."""
        settings, (rows, advantage) = self.settings, self.judged(baseline=BASELINE).of_data()
        if settings.rule == "idql":
            weight = implicit_weight(torch.from_numpy(advantage), "expectile", settings.expectile, 1.0).numpy()
        else:
            weight = advantage_weight(advantage, settings.temperature, settings.most)
        return carried(rows, weight, self._starts(), float(weight.mean()))


def train_awr(config: AWRConfig, progress: bool = True) -> dict[str, Any]:
    """Train a policy by weighted cloning, or go on training one; see `train_bc`."""
    return train_bc(config, progress, AdvantageWeightedCloning)
