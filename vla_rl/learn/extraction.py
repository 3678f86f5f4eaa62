"""PolicyExtraction: behaviour cloning whose frames, weights and targets a critic has a say in."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.data.cache import FrameCache
from vla_rl.learn.advantages import Judged, judge
from vla_rl.learn.bc import BehaviourCloning, policy_config
from vla_rl.learn.checkpoint import Checkpoint, CheckpointError, resolve
from vla_rl.learn.extraction_config import ExtractionConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import BACKBONE_DIR, VLAPolicy, read_config


class PolicyExtraction[C: ExtractionConfig](BehaviourCloning):
    """Behaviour cloning that starts from a policy, and asks `prepare` what each frame is worth.

    Subclasses fill `weight` (of each kept frame's loss, (len(data),); 0 leaves it out) in `prepare`.
    """

    settings: C

    def __init__(
        self,
        config: C,
        caches: Sequence[FrameCache],
        checkpoint: Checkpoint | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """As BehaviourCloning; the chunk length is that of the policy to go on from."""
        self.settings = config
        self.place, self.caches = device, caches
        if config.init:
            horizon = read_config(resolve(config.init)).horizon
            config = dataclasses.replace(config, horizon=horizon)
        super().__init__(config, caches, checkpoint, device, rank, world)

    def prepare(self) -> None:
        """Fill `weight`, and whatever `_items` needs."""
        raise NotImplementedError

    def judged(self, candidates: int = 0, baseline: int = 0) -> Judged:
        """The data sets as the critic sees them; arguments as `judge` takes them."""
        return judge(self.settings, str(self.place), candidates, baseline)

    def _shares(self) -> NDArray[np.float64]:
        """Frames that weigh nothing are not drawn."""
        self.weight: NDArray[np.float32] = np.ones(len(self.data), np.float32)
        self.prepare()
        shares = np.where(self.weight > 0, super()._shares(), 0.0)
        if not shares.any():
            raise ValueError("no frame is left to imitate: loosen the rule, or give more data")
        return shares / shares.sum()

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items with their weights, on average 1 over what is drawn."""
        return {**super()._items(indices), "weight": torch.from_numpy(self.weight[indices])}

    def _new(self, caches: Sequence[FrameCache]) -> VLAPolicy:
        """The policy to go on from, held against the data; or a new one."""
        if not self.settings.init:
            return super()._new(caches)
        folder = resolve(self.settings.init)
        start = VLAPolicy.from_pretrained(folder)
        policy = VLAPolicy(self._adapted(copy.deepcopy(start.config)), backbone_dir=folder / BACKBONE_DIR)
        policy.load_state_dict(start.state_dict(), strict=False)  # what it has more is new, and starts from chance
        expected = policy_config(self.data, self.config)
        for name in ("input_features", "output_features", "fps", "state_names"):
            has, wants = getattr(policy.config, name), getattr(expected, name)
            if has != wants:
                raise CheckpointError(f"--init {folder} and the data differ in {name}: {has} against {wants}")
        return policy

    def _adapted(self, config: VLAConfig) -> VLAConfig:
        """The config to go on with."""
        config.device = str(self.place)
        return config

    def facts(self) -> dict[str, Any]:
        """Also how many frames count, and how much."""
        counted = self.weight[self.weight > 0]
        return {**super().facts(), "imitated": len(counted), "weight_max": float(counted.max()), **self.remembered()}

    def remembered(self) -> Mapping[str, Any]:
        """More facts of a subclass."""
        return {}

    def _rows(self) -> NDArray[np.int64]:
        """Row of each kept frame, counted through all sets, (len(data),)."""
        return self.data.rows

    def _starts(self) -> NDArray[np.int64]:
        """First row of each episode through all sets, and the number of rows, (E + 1,)."""
        first = np.cumsum([0, *(len(cache) for cache in self.caches)])
        pieces = [cache.starts[:-1] + f for cache, f in zip(self.caches, first, strict=False)]
        return np.concatenate([*pieces, first[-1:]])
