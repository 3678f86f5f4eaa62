"""Guided: a critic that acts while chunks are denoised, by resampling particles (fk) or by its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.policy.context import Context
from vla_rl.policy.engine import Engine, EngineConfig, load_engine
from vla_rl.policy.folder import choose_device, fingerprint
from vla_rl.policy.inputs import Columns
from vla_rl.policy.layers import features_of
from vla_rl.policy.served import OwnPolicy, Served
from vla_rl.steer.critic import LoadedCritic
from vla_rl.types import RobotSpec

Reward = Callable[[Tensor], Tensor]
METHODS = ("fk", "gradient")
LOST = -1e9  # log-weight of a particle of which nothing finite is said: none goes on from there while others are left


@dataclass(frozen=True)
class GuidedConfig:
    """How a critic acts during denoising: draws are from the policy's distribution times exp(value / temperature).

    Attributes:
        method: "fk" (particles, no gradient needed, K of them) or "gradient" (each chunk by itself).
        temperature: in units of the value.
        every: `fk` considers resampling at every so many denoising steps.
        least_effective: `fk` resamples where fewer than this share of the particles carry the weight.
    """

    method: str = "fk"
    temperature: float = 0.1
    every: int = 1
    least_effective: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, or numbers that make no sense."""
        if self.method not in METHODS:
            raise ValueError(f"unknown guidance '{self.method}'; there are: {', '.join(METHODS)}")
        if not (self.temperature > 0 and self.every >= 1 and 0 < self.least_effective <= 1):
            raise ValueError(f"temperature must be positive, every at least 1, least_effective in (0, 1]: {self}")

    def check(self, candidates: int) -> None:
        """Raise ValueError for particles that would have nobody to be resampled from."""
        if self.method == "fk" and candidates < 2:
            raise ValueError(f"fk resamples among candidates, and there would be {candidates}: draw 2 or more")


class Particles:
    """Feynman-Kac steering (arXiv:2501.06848): particles go on in proportion to how much their reward has grown.

    With the potentials exp(r(x0 predicted at t) - r(x0 predicted before)), whose product is exp(r(x0)), K particles
    tend to draws from the policy's distribution times exp(r).

    Args:
        reward: clean chunks (B, K, H, A) to log-weights (B, K).
        config: when to resample.
        generator: draws which particles go on, on the CPU.
    """

    def __init__(self, reward: Reward, config: GuidedConfig, generator: torch.Generator) -> None:
        self._reward, self._config, self._generator = reward, config, generator
        self._before: Tensor | None = None
        self._log_weights: Tensor | None = None

    def __call__(self, clean: Tensor, left: int) -> Tensor | None:
        """Which particle goes on in each place, (B, K), or None for all; see `diffusion.sample`."""
        found = self._reward(clean)
        now = torch.where(found.isfinite(), found, LOST)
        gained = now if self._before is None else now - self._before
        self._before = now
        self._log_weights = gained if self._log_weights is None else self._log_weights + gained
        weights = self._log_weights.softmax(-1)
        effective = 1 / weights.square().sum(-1).max() / weights.shape[-1]
        due = left % self._config.every == 0 and float(effective) < self._config.least_effective
        if left and not due:
            return None
        rows = systematic(weights, self._generator)
        self._before, self._log_weights = now.gather(1, rows), None
        return rows


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: K indices for each row of weights (B, K), each as often as its weight says, or nearly."""
    batch, count = weights.shape
    offset = torch.rand(batch, 1, generator=generator).to(weights.device)
    points = (torch.arange(count, device=weights.device) + offset) / count
    return torch.searchsorted(weights.cumsum(-1).contiguous(), points.to(weights.dtype)).clamp(max=count - 1)


def gradient(reward: Reward) -> Callable[[Tensor], Tensor]:
    """The gradient of a reward (B, K) with regard to clean chunks (B, K, H, A), also in inference mode."""

    def at(clean: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            chunks = clean.clone().requires_grad_()
            (found,) = torch.autograd.grad(reward(chunks).sum(), chunks)
        return found

    return at


@dataclass(frozen=True, eq=False)
class Seen:
    """What the policy made of an observation, and what the critic reads of it, (1, D)."""

    context: Context
    features: Tensor | NDArray[np.float32]


class Guided:
    """One of our policies, whose candidates are drawn under a critic's influence: a Served like any other.

    Args:
        served: the policy.
        critic: who says what is good, by the policy's features or by those of its own encoder.
        config: how it acts.

    Raises:
        ValueError: they do not fit.
    """

    deterministic = False

    def __init__(self, served: Served, critic: LoadedCritic, config: GuidedConfig) -> None:
        if not isinstance(served, OwnPolicy):
            raise ValueError(
                f"guidance acts inside our own denoiser; '{served.config.type}' is not one of our policies"
            )
        critic.require_fit(action_dim=served.config.action_dim, horizon=served.config.horizon)
        critic.require_frames(int(served.config.n_obs_steps), "the policy's observation")
        self.config, self._served, self._critic, self._how = served.config, served, critic, config
        self.notes = [*served.notes, f"candidates are drawn under the critic's influence ({config.method})"]

    @property
    def action_scale(self) -> NDArray[np.float32]:
        """The policy's."""
        return self._served.action_scale

    def encode(self, history: Sequence[Columns], task: str) -> Seen:
        """The policy's context, and what the critic reads."""
        context: Context = self._served.encode(history, task)
        if self._critic.encoder == "own":
            return Seen(context, self._critic.features_of([history], [task]))
        return Seen(context, features_of(context, self._critic.layer))

    def sample(self, context: Seen, k: int, seed: int) -> NDArray[np.float32]:
        """K chunks, (K, H, A)."""
        reward = self._reward(context)
        if self._how.method == "gradient":
            return self._served.sample(context.context, k, seed, tilt=gradient(reward))
        generator = torch.Generator().manual_seed(seed)
        return self._served.sample(context.context, k, seed, resample=Particles(reward, self._how, generator))

    def _reward(self, seen: Seen) -> Reward:
        """Chunks (B, K, H, A) to value / temperature, (B, K)."""
        embedded = self._critic.embed(seen.features, seen.context.state)
        return lambda chunks: self._critic.worth(embedded, chunks) / self._how.temperature

    def features(self, context: Seen, layer: str = "pooled") -> NDArray[np.float32] | None:
        """The policy's."""
        return self._served.features(context.context, layer)


def guided_engine(
    folder: str | Path,
    spec: RobotSpec,
    cameras: Sequence[str],
    config: EngineConfig,
    critic: str,
    how: GuidedConfig,
    trusted: bool = False,
) -> Engine:
    """The engine of a policy folder whose candidates are drawn under a critic's influence.

    Args:
        folder: of the policy, one of ours.
        spec: the robot.
        cameras: the robot's.
        config: of the engine.
        critic: its folder.
        how: the critic acts.
        trusted: whether a critic counts whose report failed.

    Raises:
        ValueError: policy or critic can not be loaded, or they fit neither each other nor the robot.
    """
    found = LoadedCritic.load(critic, choose_device(config.device), trusted=trusted)
    found.require_fit(policy_fingerprint=fingerprint(folder), names=spec.lerobot_action_spec.names)
    return load_engine(folder, spec, cameras, config, lambda served: Guided(served, found, how))
