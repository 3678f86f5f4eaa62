"""ActPolicy: LeRobot's ACT, which takes the mean of its latent and therefore always answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.policy.adapters.lerobot import LeRobotPolicy
from vla_rl.policy.inputs import Columns
from vla_rl.policy.precision import precision


class ActPolicy(LeRobotPolicy):
    """One answer an observation, computed once; for candidates that differ see `perturb.Perturbed`."""

    deterministic = True

    @property
    def notes(self) -> list[str]:
        """That there is nothing to choose from."""
        return ["'act' always answers the same: candidates differ only where they are perturbed (perturb)"]

    @torch.inference_mode()
    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """The one chunk, (1, H, A)."""
        with precision(self._device, self._dtype):
            self._parts.policy.reset()
            return self._finished([self._draw(self._frames(history, task)[-1])])

    def sample(self, context: Any, k: int, seed: int) -> NDArray[np.float32]:
        """The one chunk, K times, (K, H, A)."""
        return np.repeat(context, k, axis=0)
