"""Actors that need no learned policy: the scripted expert with execution noise, and a uniformly random one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.play import Job, Proposal
from vla_rl.rollout.world import Frame, World
from vla_rl.types import Source


class ExecutionNoise:
    """Ornstein-Uhlenbeck noise on executed actions: small, correlated, and faded out where precision matters.

    Args:
        scale: stationary standard deviation of each dimension, (A,), in the action's units.
        dt: time between two actions [s].
        seed: of this episode.
        tau: correlation time [s].
    """

    FADE = 0.2  # largest change of the gain in one step, so that the noise never jumps

    def __init__(self, scale: NDArray[np.float64], dt: float, seed: int, tau: float = 0.2) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._scale = scale
        self._keep = math.exp(-dt / tau)
        self._state = np.zeros_like(scale)
        self._gain = 0.0

    def sample(self, allowed: bool) -> NDArray[np.float64]:
        """The noise of the next step, (A,); it fades to zero while `allowed` is false."""
        fresh = self._rng.standard_normal(self._scale.shape) * self._scale
        self._state = self._keep * self._state + math.sqrt(1.0 - self._keep**2) * fresh
        self._gain += float(np.clip(float(allowed) - self._gain, -self.FADE, self.FADE))
        return self._gain * self._state


def noise_scale(world: World, noise: float) -> NDArray[np.float64]:
    """Noise of `noise` [rad] on arm joints in a world's units of action, (A,); 0 for grippers and without a robot."""
    robot: Any = getattr(world.env.unwrapped, "spec_robot", None)
    if robot is None:
        return np.zeros(world.action.dim)
    step = robot.to_lerobot(np.full(world.action.dim, noise)) - robot.to_lerobot(np.zeros(world.action.dim))
    return np.where([joint.gripper for joint in robot.joints], 0.0, step)


@dataclass(eq=False)
class ExpertActor:
    """The environment's scripted expert, perturbed while it allows it; its own target stays clean.

    Attributes:
        clumsy: the deliberately poor mode, for data of mixed quality.
        noise: standard deviation of the execution noise of arm joints [rad]; the gripper is never perturbed.
    """

    clumsy: bool = False
    noise: float = 0.0
    slots: int = 1
    period: int = 1

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """A fresh expert and fresh noise."""
        self._expert = world.expert(clumsy=self.clumsy, seed=seed)
        self._noise = ExecutionNoise(noise_scale(world, self.noise), 1.0 / world.fps, seed)

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """The expert's target for the state as it is now, plus noise."""
        return {slot: self._propose() for slot in frames}

    def _propose(self) -> Proposal:
        clean = np.asarray(self._expert.act(), dtype=np.float32)
        noise = self._noise.sample(bool(getattr(self._expert, "may_perturb", True)))
        return Proposal((clean + noise).astype(np.float32), clean, Source.EXPERT, look=False)


@dataclass(eq=False)
class RandomActor:
    """Uniform actions within the bounds; a dimension without bounds is drawn from the standard normal.

    Each is a chunk of its own: what no expert did must not be taken for a demonstration (`data.rollouts`).
    """

    slots: int = 1
    period: int = 1

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Seed this episode's draws."""
        self._rng = np.random.default_rng([seed, 2])
        self._low, self._high = np.array(world.action.low), np.array(world.action.high)
        self._made = -1

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """One draw for each episode."""
        return {slot: self._propose() for slot in frames}

    def _propose(self) -> Proposal:
        self._made += 1
        action = self._draw()
        return Proposal(action, action, Source.POLICY, chunk=self._made, look=False)

    def _draw(self) -> NDArray[np.float32]:
        bounded = np.isfinite(self._low) & np.isfinite(self._high)
        low, high = np.where(bounded, self._low, 0.0), np.where(bounded, self._high, 0.0)
        normal = self._rng.standard_normal(len(low))
        return np.where(bounded, self._rng.uniform(low, high), normal).astype(np.float32)
