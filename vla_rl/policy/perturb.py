"""Perturbed: candidates from few draws and Gaussian perturbations, for policies that are deterministic or slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.policy.inputs import Columns
from vla_rl.policy.served import Served, action_names

Chunks = NDArray[np.float32]


@dataclass(frozen=True)
class PerturbConfig:
    """How candidates are made of draws (RoboMonkey, arXiv:2506.17811, perturbs a Gaussian fit of a few samples).

    Attributes:
        draws: chunks that the policy itself draws; the others are perturbations of these. 0 draws all: no perturbation.
        scale: standard deviation in units of how much an action varies in the training data.
        rise: actions over which a perturbation grows from 0, so that no candidate begins with a jump.
        gripper: whether the gripper is perturbed too.
    """

    draws: int = 0
    scale: float = 0.1
    rise: int = 4
    gripper: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        if self.draws < 0 or self.rise < 1 or not self.scale >= 0:
            raise ValueError(f"draws and scale must not be negative, rise at least 1: {self}")


class Perturbed:
    """A policy whose K candidates are a few draws of its own, followed by perturbations of them.

    Args:
        served: the policy.
        config: how.
        grippers: which actions open and close one, (A,); empty where nobody knows, and then all are perturbed.

    Attributes:
        config: the policy's.
        deterministic: never, but with a scale of 0.
    """

    def __init__(self, served: Served, config: PerturbConfig, grippers: Sequence[bool] = ()) -> None:
        self.config, self._served, self._how = served.config, served, config
        self.deterministic = served.deterministic and config.scale == 0
        still = np.array([gripper and not config.gripper for gripper in grippers] or [False])
        self._spread = np.where(still, 0.0, config.scale * served.action_scale).astype(np.float32)
        too = "" if len(grippers) or config.gripper else ", grippers too: the policy does not name its actions"
        self.notes = [*served.notes, f"candidates after the first {config.draws} are perturbed draws{too}"]

    @property
    def action_scale(self) -> NDArray[np.float32]:
        """The policy's."""
        return self._served.action_scale

    def encode(self, history: Sequence[Columns], task: str) -> Any:
        """The policy's."""
        return self._served.encode(history, task)

    def sample(self, context: Any, k: int, seed: int) -> Chunks:
        """K chunks, (K, H, A); the first of them do not depend on K."""
        drawn = self._served.sample(context, min(k, self._how.draws), seed)
        return fill(drawn, k, self._spread, self._how.rise, np.random.default_rng([seed, 3]))

    def features(self, context: Any, layer: str = "pooled") -> NDArray[np.float32] | None:
        """The policy's."""
        return self._served.features(context, layer)


def fill(drawn: Chunks, k: int, spread: Chunks, rise: int, rng: np.random.Generator) -> Chunks:
    """Draws (N, H, A) and perturbations of them, in turn, up to K chunks.

    A perturbation is one Gaussian offset an action dimension, which is reached over the first `rise` actions and then
    kept: a chunk that goes elsewhere, not one that trembles.

    Args:
        drawn: the policy's.
        k: how many chunks there shall be.
        spread: standard deviations, (A,).
        rise: see `PerturbConfig`.
        rng: draws the offsets.
    """
    missing = k - len(drawn)
    if missing <= 0:
        return drawn[:k]
    grown = np.minimum(np.arange(1, drawn.shape[1] + 1) / rise, 1.0)[:, None]
    offsets = rng.normal(size=(missing, 1, drawn.shape[2])) * spread * grown
    return np.concatenate([drawn, drawn[np.arange(missing) % len(drawn)] + offsets]).astype(np.float32)


def perturbed(served: Served, config: PerturbConfig, grippers: Sequence[bool] = ()) -> Served:
    """The policy itself where nothing is to be perturbed, else `Perturbed`.

    Args:
        served: the policy.
        config: how.
        grippers: see `Perturbed`; where not given, the policy's own names of its actions tell, if it has any.

    Raises:
        ValueError: a policy that always answers the same is asked for several draws.
    """
    if not config.draws:
        return served
    if served.deterministic and config.draws > 1:
        raise ValueError(f"this policy always answers the same: 1 draw is enough, not {config.draws}")
    return Perturbed(served, config, grippers or ["gripper" in name for name in action_names(served.config)])
