"""DiffusionPolicy: LeRobot's diffusion policy, whose cameras are looked through once, whatever the number of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.policy.adapters.lerobot import LeRobotPolicy, seeds
from vla_rl.policy.inputs import Columns
from vla_rl.policy.precision import numbers, precision

STACKED = "observation.images"


class DiffusionPolicy(LeRobotPolicy):
    """The conditioning vector is computed once; K chunks are one batch of the U-Net."""

    @property
    def notes(self) -> list[str]:
        """That its default sampler is slow."""
        model = self._parts.policy.diffusion
        if model.num_inference_steps <= 20:
            return []
        return [f"'diffusion' denoises in {model.num_inference_steps} steps: DDIM with 10 is about as good"]

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """The conditioning vector, (1, D)."""
        frames, config = self._frames(history, task), self.config
        batch = {key: torch.stack([frame[key] for frame in frames], dim=1) for key in config.input_features}
        if config.image_features:
            batch[STACKED] = torch.stack([batch[key] for key in config.image_features], dim=-4)
        with precision(self._device, self._dtype):
            return self._parts.policy.diffusion._prepare_global_conditioning(batch)

    @torch.inference_mode()
    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A); the first of them do not depend on K."""
        config, model = self.config, self._parts.policy.diffusion
        generators = [torch.Generator(self._device).manual_seed(each) for each in seeds(seed, k)]
        shape = (config.horizon, config.action_feature.shape[0])
        noise = torch.stack([torch.randn(shape, generator=g, device=self._device) for g in generators])
        with precision(self._device, self._dtype):
            drawn = model.conditional_sample(k, context.expand(k, -1), generator=generators, noise=noise)
        start = config.n_obs_steps - 1
        return self._finished(list(drawn[:, start : start + config.n_action_steps].split(1)))

    def features(self, context: Any, layer: str = "pooled") -> NDArray[np.float32] | None:
        """The conditioning vector, (D,): it is all that the U-Net sees."""
        return numbers(context[0]) if layer == "pooled" else None
