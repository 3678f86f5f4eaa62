"""FlowPolicy: LeRobot's smolvla, pi0 and pi05: the prefix (images, words) runs once, its cache serves K chunks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.policy.adapters.lerobot import LeRobotPolicy, seeds
from vla_rl.policy.configuration_vla_rl import ACTION
from vla_rl.policy.inputs import Columns
from vla_rl.policy.precision import numbers, precision


@dataclass(frozen=True, eq=False)
class Prefix:
    """What denoising needs of one observation.

    Attributes:
        cache: keys and values of the prefix, batch 1.
        rows: everything else that has a batch axis, batch 1 (masks, and the state for pi0).
    """

    cache: Any
    rows: Mapping[str, Tensor]


class _PrefixReadyError(Exception):
    """Sampling has come to its first denoising step."""


class FlowPolicy(LeRobotPolicy):
    """The policy's own sampling prepares the prefix; its own denoising step then runs on K copies of the cache.

    The copies are rows of one batch: keys and values are copied K times in memory, the encoding is not repeated.
    """

    @property
    def notes(self) -> list[str]:
        """Nothing to be said: it encodes once."""
        return []

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Prefix:
        """Run the policy's sampling as far as its first denoising step, and keep what that is given."""
        policy, model, seen = self._parts.policy, self._parts.policy.model, {}

        def stop(**given: Any) -> None:
            seen.update(given)
            raise _PrefixReadyError

        model.denoise_step = stop
        try:
            with precision(self._device, self._dtype), torch.random.fork_rng():
                policy.reset()
                policy.predict_action_chunk(dict(self._frames(history, task)[-1]))
        except _PrefixReadyError:
            pass
        finally:
            del model.denoise_step
        cache = seen.pop("past_key_values")
        return Prefix(cache, {name: rows for name, rows in seen.items() if name not in ("x_t", "timestep")})

    @torch.inference_mode()
    def sample(self, context: Prefix, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A); the first of them do not depend on K."""
        config = self.config
        shape = (config.chunk_size, config.max_action_dim)
        generators = [torch.Generator(self._device).manual_seed(each) for each in seeds(seed, k)]
        noise = torch.stack([torch.randn(shape, generator=g, device=self._device) for g in generators])
        return self.denoise(context, noise)

    @torch.inference_mode()
    def denoise(self, context: Prefix, noise: Tensor) -> NDArray[np.float32]:
        """Chunks (K, H, A) from noise (K, H, largest A)."""
        from lerobot.policies.common.flow_matching import euler_integrate

        policy, k = self._parts.policy, len(noise)
        cache = copy.deepcopy(context.cache)
        cache.batch_repeat_interleave(k)
        rows = {name: value.expand(k, *value.shape[1:]) for name, value in context.rows.items()}

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            step: Tensor = policy.model.denoise_step(past_key_values=cache, x_t=x, timestep=time, **rows)
            return step

        steps = int(getattr(self.config, "num_steps", 0) or self.config.num_inference_steps)
        with precision(self._device, self._dtype):
            drawn = euler_integrate(velocity, noise, steps)[..., : self.config.output_features[ACTION].shape[0]]
        if getattr(self.config, "adapt_to_pi_aloha", False):
            drawn = policy._pi_aloha_encode_actions(drawn)
        return self._finished(list(drawn.split(1)))

    def features(self, context: Prefix, layer: str = "pooled") -> NDArray[np.float32] | None:
        """The prefix's values in the last layer, averaged over its tokens, (heads x width,)."""
        if layer != "pooled":
            return None
        values = context.cache.layers[-1].values[0]  # (heads, S, width)
        mask = context.rows["prefix_pad_masks"][0].to(values.dtype)
        return numbers(((values * mask[:, None]).sum(1) / mask.sum().clamp(min=1)).flatten())
