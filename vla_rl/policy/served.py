"""Served: one interface to encode an observation and draw chunks, for our policies and for any of LeRobot's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.policy.configuration_vla_rl import ACTION
from vla_rl.policy.folder import OWN_TYPE, LeRobotParts, load_lerobot, read_config
from vla_rl.policy.inputs import Columns, observation_batch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Served(Protocol):
    """A policy that answers one observation at a time.

    Attributes:
        config: LeRobot's PreTrainedConfig: features, `n_obs_steps`.
    """

    config: Any

    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """Everything about an observation that does not depend on the noise; history is oldest first."""

    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks from one encoding, (K, H, A) in the data set's units; the same seed draws the same ones."""

    def features(self, context: Any) -> NDArray[np.float32] | None:
        """What a critic may read of an encoding, (D,), None where the policy shows nothing."""


def load_served(folder: str | Path, device: str = "cpu", dtype: str = "float32") -> Served:
    """Load a policy folder, ours or one of LeRobot's, ready to answer.

    Raises:
        ValueError: it cannot be loaded, or no such number format.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype '{dtype}'; there are: {', '.join(DTYPES)}")
    if read_config(folder)["type"] == OWN_TYPE:
        from vla_rl.policy.modeling_vla_rl import VLAPolicy

        return OwnPolicy(VLAPolicy.from_pretrained(folder).to(device).eval(), dtype)
    return LeRobotPolicy(load_lerobot(folder, device), dtype)


class OwnPolicy:
    """Ours: the backbone runs once, K chunks are one batch of the head."""

    def __init__(self, policy: Any, dtype: str = "float32") -> None:
        self.config, self._policy, self._dtype = policy.config, policy, DTYPES[dtype]

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """The context of one observation."""
        with _precision(self._policy.device, self._dtype):
            return self._policy.encode(observation_batch([history], [task], self.config))

    @torch.inference_mode()
    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A)."""
        generator = torch.Generator(self._policy.device).manual_seed(seed)
        with _precision(self._policy.device, self._dtype):
            return _numbers(self._policy.sample(context, k, generator)[0])

    def features(self, context: Any) -> NDArray[np.float32] | None:
        """The pooled context, (D,)."""
        return _numbers(context.pooled[0])


class LeRobotPolicy:
    """Any of LeRobot's: K calls of `predict_action_chunk`, each with the noise that it draws next."""

    def __init__(self, parts: LeRobotParts, dtype: str = "float32") -> None:
        self.config, self._parts, self._dtype = parts.policy.config, parts, DTYPES[dtype]
        # Such a policy keeps observations in queues of its own, which only its select_action fills.
        self._remembers = any(key != ACTION for key in getattr(parts.policy, "_queues", {}))
        self._device = torch.device(str(self.config.device))

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """Preprocessed batches, one a frame, oldest first."""
        steps = int(self.config.n_obs_steps)
        frames = [*[history[0]] * (steps - len(history)), *history[-steps:]]
        return [self._parts.before(self._batch(frame, task)) for frame in frames]

    @torch.inference_mode()
    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A)."""
        with torch.random.fork_rng(), _precision(self._device, self._dtype):
            torch.manual_seed(seed)
            self._parts.policy.reset()
            chunks = self._draw_remembering(context, k) if self._remembers else self._draw(context[-1], k)
        return np.stack([_numbers(self._parts.after(chunk)[0]) for chunk in chunks])

    def features(self, context: Any) -> None:
        """LeRobot's policies show nothing."""

    def _batch(self, frame: Columns, task: str) -> dict[str, Any]:
        batch: dict[str, Any] = {"task": [task]}
        newest = observation_batch([[frame]], [task], _OneFrame(self.config))
        for key, value in newest.items():
            batch[key] = value.float() / 255.0 if key != "task" and value.dtype == torch.uint8 else value
        return batch

    def _draw(self, batch: dict[str, Any], k: int) -> list[Any]:
        return [self._parts.policy.predict_action_chunk(dict(batch)) for _ in range(k)]

    def _draw_remembering(self, batches: Sequence[dict[str, Any]], k: int) -> list[Any]:
        """Let select_action take every frame; when it asks for its chunk, on the newest one, draw all K."""
        policy, predict = self._parts.policy, self._parts.policy.predict_action_chunk
        chunks: list[Any] = []
        nothing = torch.zeros(1, self.config.output_features[ACTION].shape[0], device=self._device)

        def draw(batch: dict[str, Any], **options: Any) -> Any:
            chunks.extend(predict(dict(batch), **options) for _ in range(k))
            return chunks[0]

        policy.predict_action_chunk = draw
        try:
            for batch in batches[:-1]:
                policy._queues[ACTION].append(nothing)  # an action in the queue: the frame is only remembered
                policy.select_action(dict(batch))
            policy.select_action(dict(batches[-1]))
        finally:
            del policy.predict_action_chunk
        return chunks


class _OneFrame:
    """A policy's config as far as one frame needs it."""

    n_obs_steps = 1

    def __init__(self, config: Any) -> None:
        self.input_features = config.input_features


@contextmanager
def _precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in `dtype`, everything that needs more in float32."""
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield


def _numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
