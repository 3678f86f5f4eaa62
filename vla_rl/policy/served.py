"""Served: one interface to encode an observation and draw chunks, for our policies and for any of LeRobot's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.policy.adapters import adapt
from vla_rl.policy.folder import OWN_TYPE, load_lerobot, read_config, with_denoising
from vla_rl.policy.inputs import Columns, observation_batch
from vla_rl.policy.layers import features_of
from vla_rl.policy.precision import DTYPES, numbers, precision


class Served(Protocol):
    """A policy that answers one observation at a time.

    Attributes:
        config: LeRobot's PreTrainedConfig: features, `n_obs_steps`.
        notes: what a user should know about how it is served, one line each.
        deterministic: whether it always answers the same.
        action_scale: how much each action varies, (A,), in the data set's units.
    """

    config: Any
    deterministic: bool

    @property
    def notes(self) -> list[str]:
        """What a user should know about how it is served, one line each."""

    @property
    def action_scale(self) -> NDArray[np.float32]:
        """How much each action varies, (A,), in the data set's units."""

    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """Everything about an observation that does not depend on the noise; history is oldest first."""

    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks from one encoding, (K, H, A) in the data set's units; the same seed draws the same ones."""

    def features(self, context: Any, layer: str = "pooled") -> NDArray[np.float32] | None:
        """What a critic may read of an encoding, (D,), None where the policy shows nothing of that name."""


def load_served(folder: str | Path, device: str = "cpu", dtype: str = "float32", denoising_steps: int = 0) -> Served:
    """Load a policy folder, ours or one of LeRobot's, ready to answer.

    Args:
        folder: of the policy.
        device: where it computes.
        dtype: number format of matrix products.
        denoising_steps: how many make a chunk of noise; 0 for what the policy's configuration says.

    Raises:
        ValueError: it cannot be loaded, does not denoise, or no such number format.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype '{dtype}'; there are: {', '.join(DTYPES)}")
    if read_config(folder)["type"] == OWN_TYPE:
        from vla_rl.policy.modeling_vla_rl import VLAPolicy

        config = with_denoising(folder, denoising_steps)
        return OwnPolicy(VLAPolicy.from_pretrained(folder, config=config).to(device).eval(), dtype)
    return adapt(load_lerobot(folder, device, denoising_steps), dtype)


def chunk_length(config: Any) -> int:
    """Actions H in a chunk of a policy, ours or one of LeRobot's."""
    length = "horizon" if config.type == OWN_TYPE else "chunk_size"
    return int(getattr(config, length, config.n_action_steps))


def action_names(config: Any) -> list[str]:
    """What a policy, ours or one of LeRobot's, calls its actions; empty where it does not name them."""
    names = getattr(config, "action_names", None) or getattr(config, "action_feature_names", None) or ()
    return [str(name) for name in names]


class OwnPolicy:
    """Ours: the backbone runs once, K chunks are one batch of the head."""

    deterministic = False

    def __init__(self, policy: Any, dtype: str = "float32") -> None:
        self.config, self._policy, self._dtype = policy.config, policy, DTYPES[dtype]
        self.notes: list[str] = []

    @property
    def action_scale(self) -> NDArray[np.float32]:
        """How much each action varies (relative to the state, where it is predicted so), (A,)."""
        return numbers(self._policy.normalizer.action.scale.mean(0))

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """The context of one observation."""
        with precision(self._policy.device, self._dtype):
            return self._policy.encode(observation_batch([history], [task], self.config))

    @torch.inference_mode()
    def sample(self, context: Any, k: int, seed: int, **options: Any) -> NDArray[np.float32]:
        """K chunks, (K, H, A); the first of them do not depend on K (but with `ddpm`, which draws at every step).

        Args:
            context: from `encode`.
            k: how many.
            seed: of the noise.
            options: of `VLAPolicy.sample`: guide, tilt, resample, prefix, init.
        """
        device, config = self._policy.device, self.config
        generator = torch.Generator(device).manual_seed(seed)
        shape = (config.horizon, config.action_dim)
        noise = torch.stack([torch.randn(shape, generator=generator, device=device) for _ in range(k)])[None]
        with precision(device, self._dtype):
            return numbers(self._policy.sample(context, k, generator, noise=noise, **options)[0])

    def features(self, context: Any, layer: str = "pooled") -> NDArray[np.float32] | None:
        """A layer of the context, (D,); see `layers.LAYERS`."""
        return numbers(features_of(context, layer)[0])
