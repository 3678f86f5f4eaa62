"""LeRobotPolicy: any of LeRobot's policies, through nothing but its public interface; others build on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.policy.configuration_vla_rl import ACTION
from vla_rl.policy.folder import LeRobotParts
from vla_rl.policy.inputs import Columns, observation_batch
from vla_rl.policy.precision import DTYPES, numbers, precision


class LeRobotPolicy:
    """K calls of `predict_action_chunk`, each with the noise of its own seed: the observation is encoded K times.

    Args:
        parts: the policy and its processors.
        dtype: number format of matrix products.

    Attributes:
        config: LeRobot's PreTrainedConfig.
        notes: what a user should know about how it is served.
        deterministic: whether it always answers the same.
    """

    deterministic = False

    def __init__(self, parts: LeRobotParts, dtype: str = "float32") -> None:
        self.config, self._parts, self._dtype = parts.policy.config, parts, DTYPES[dtype]
        # Such a policy keeps observations in queues of its own, which only its select_action fills.
        self._remembers = any(key != ACTION for key in getattr(parts.policy, "_queues", {}))
        self._device = torch.device(str(self.config.device))

    @property
    def notes(self) -> list[str]:
        """What a user should know about how it is served."""
        return [f"'{self.config.type}' encodes an observation anew for each candidate: K of them cost K times one"]

    @property
    def action_scale(self) -> NDArray[np.float32]:
        """How much each action varies in the training data, (A,), in the data set's units."""
        return _action_scale(self._parts.after, int(self.config.output_features[ACTION].shape[0]))

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """Preprocessed batches, one a frame, oldest first."""
        return self._frames(history, task)

    @torch.inference_mode()
    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A); the first of them do not depend on K."""
        chunks = []
        for each in seeds(seed, k):
            with torch.random.fork_rng(), precision(self._device, self._dtype):
                torch.manual_seed(each)
                self._parts.policy.reset()
                chunks.append(self._draw_remembering(context) if self._remembers else self._draw(context[-1]))
        return self._finished(chunks)

    def features(self, context: Any, layer: str = "pooled") -> NDArray[np.float32] | None:
        """Nothing is known of what it encodes."""
        return None

    def _frames(self, history: Sequence[Columns], task: str) -> list[dict[str, Any]]:
        """Preprocessed batches, one a frame; the first stands in for the past that there is not."""
        steps = int(self.config.n_obs_steps)
        frames = [*[history[0]] * (steps - len(history)), *history[-steps:]]
        return [self._parts.before(self._batch(frame, task)) for frame in frames]

    def _batch(self, frame: Columns, task: str) -> dict[str, Any]:
        batch: dict[str, Any] = {"task": [task]}
        newest = observation_batch([[frame]], [task], _OneFrame(self.config))
        for key, value in newest.items():
            batch[key] = value.float() / 255.0 if key != "task" and value.dtype == torch.uint8 else value
        return batch

    def _finished(self, chunks: Sequence[Tensor]) -> NDArray[np.float32]:
        """Chunks (1, H, A) each as the policy gives them to (K, H, A) in the data set's units."""
        return np.stack([numbers(self._parts.after(chunk)[0]) for chunk in chunks])

    def _draw(self, batch: dict[str, Any]) -> Tensor:
        chunk: Tensor = self._parts.policy.predict_action_chunk(dict(batch))
        return chunk

    def _draw_remembering(self, batches: Sequence[dict[str, Any]]) -> Tensor:
        """Let select_action take every frame; keep the chunk that it asks for on the newest one."""
        policy, predict = self._parts.policy, self._parts.policy.predict_action_chunk
        chunks: list[Tensor] = []
        nothing = torch.zeros(1, self.config.output_features[ACTION].shape[0], device=self._device)

        def draw(batch: dict[str, Any], **options: Any) -> Tensor:
            chunks.append(predict(dict(batch), **options))
            return chunks[0]

        policy.predict_action_chunk = draw
        try:
            for batch in batches[:-1]:
                policy._queues[ACTION].append(nothing)  # an action in the queue: the frame is only remembered
                policy.select_action(dict(batch))
            policy.select_action(dict(batches[-1]))
        finally:
            del policy.predict_action_chunk
        return chunks[0]


def seeds(seed: int, k: int) -> list[int]:
    """One seed a candidate: the first of K do not depend on K, and the very first is the seed itself."""
    return [seed, *(int(each) for each in np.random.SeedSequence(seed).generate_state(k - 1))]


def _action_scale(after: Any, size: int) -> NDArray[np.float32]:
    """Spread of the actions as a policy's unnormaliser knows it."""
    for step in after.steps:
        stats = (getattr(step, "stats", None) or {}).get(ACTION)
        if stats is None:
            continue
        low, high = (("q01", "q99") if "q99" in stats else ("min", "max")) if "std" not in stats else ("std", "std")
        spread = np.asarray(stats[high]) if low == high else (np.asarray(stats[high]) - np.asarray(stats[low])) / 4
        return np.asarray(spread, dtype=np.float32).reshape(-1)[:size]
    return np.ones(size, dtype=np.float32)


class _OneFrame:
    """A policy's config as far as one frame needs it."""

    n_obs_steps = 1

    def __init__(self, config: Any) -> None:
        self.input_features = config.input_features
