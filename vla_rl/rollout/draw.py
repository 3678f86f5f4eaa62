"""Drawers: observations to K candidate chunks each. Ours in batches of a fixed size, LeRobot's one at a time.

The noise of a decision depends on its seed alone, and candidate k's on nothing that comes after it: the candidates of
K = 4 are the first four of K = 8, so that arms and N-curves are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.policy.folder import fingerprint
from vla_rl.policy.inputs import observation_batch
from vla_rl.policy.layers import features_of
from vla_rl.policy.served import Served, chunk_length
from vla_rl.rollout.world import Frame, World


@dataclass(frozen=True, eq=False)
class Question:
    """One observation that wants chunks.

    Attributes:
        frames: what is known, oldest first; the newest is answered.
        k: how many chunks.
        seed: of their noise.
    """

    frames: Sequence[Frame]
    k: int
    seed: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """The answer to one question.

    Attributes:
        chunks: (K, H, A) in the data set's units; fewer than asked where the policy always answers the same.
        features: of the observation at the drawer's layer, (D,), None where the policy shows none.
    """

    chunks: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


class Drawer(Protocol):
    """A policy that answers questions.

    Attributes:
        name: of the policy's folder, for messages.
        fingerprint: of its weights.
        frames: observations it wants to see at once.
        horizon: actions of a chunk, H.
        steps: actions of a chunk that it means to be executed.
        batch: questions answered at once.
        layer: which of its features an answer carries, see `policy.layers`.
    """

    name: str
    fingerprint: str
    frames: int
    horizon: int
    steps: int
    batch: int
    layer: str

    def check(self, world: World) -> None:
        """Raise ValueError where the world does not fit."""

    def draw(self, questions: Sequence[Question]) -> list[Drawn]:
        """An answer to each; none depends on the others."""


def check_fit(inputs: Mapping[str, Any], outputs: Mapping[str, Any], world: World, name: str) -> None:
    """Raise ValueError where the world lacks what the policy sees, or takes other actions than it gives."""
    for key, feature in inputs.items():
        shape = tuple(feature.shape)
        given = world.features.get(key)
        if given is None:
            raise ValueError(
                f"{name} needs '{key}', which '{world.name}' does not give; it gives: {', '.join(world.features)}"
            )
        have = tuple(given["shape"])
        if given["dtype"] != "image" and have != shape:
            raise ValueError(f"{name} needs '{key}' of shape {shape}; '{world.name}' gives {have}")
    wanted = tuple(outputs["action"].shape)
    if wanted != (world.action.dim,):
        raise ValueError(f"{name} gives actions of shape {wanted}; '{world.name}' takes ({world.action.dim},)")


class OwnDrawer:
    """Our policy: one encoding a question, all chunks of a batch in one pass of the head.

    Args:
        policy: a VLAPolicy.
        name: of its folder.
        batch: questions the network sees at once. A fixed size, filled up where there are fewer: an answer then does
            not depend on which others were in the batch.
    """

    layer = "pooled"

    def __init__(self, policy: Any, name: str, batch: int) -> None:
        self._policy, self.name, self.fingerprint = policy, name, fingerprint(name)
        config = policy.config
        self.frames, self.horizon, self.steps = int(config.n_obs_steps), int(config.horizon), int(config.n_action_steps)
        # A sampler that draws noise at every step draws it for the whole batch: only alone is it the question's own.
        self.batch = 1 if config.scheduler == "ddpm" else batch

    def check(self, world: World) -> None:
        """As `check_fit`."""
        check_fit(self._policy.config.input_features, self._policy.config.output_features, world, self.name)

    def draw(self, questions: Sequence[Question]) -> list[Drawn]:
        """Chunks and features; the questions of one call ask for the same number."""
        starts = range(0, len(questions), self.batch)
        return [drawn for start in starts for drawn in self._draw(questions[start : start + self.batch])]

    @torch.inference_mode()
    def _draw(self, questions: Sequence[Question]) -> list[Drawn]:
        """One batch, filled up to its fixed size with copies of the last question."""
        filled = [*questions, *[questions[-1]] * (self.batch - len(questions))]
        generators = [torch.Generator().manual_seed(question.seed) for question in filled]
        noise = torch.stack([self._noise(question.k, g) for question, g in zip(filled, generators, strict=True)])
        context = self._policy.encode(encodable(filled, self._policy.config))
        chunks = self._policy.sample(context, filled[0].k, generators[0], noise=noise.to(self._policy.device))
        parts = zip(_numbers(chunks), _numbers(features_of(context, self.layer)), strict=True)
        return [Drawn(*part) for part, _ in zip(parts, questions, strict=False)]

    def _noise(self, k: int, generator: torch.Generator) -> torch.Tensor:
        shape = (self.horizon, self._policy.config.action_dim)
        return torch.stack([torch.randn(shape, generator=generator) for _ in range(k)])


class ServedDrawer:
    """Any LeRobot policy, one question after the other.

    Args:
        served: the policy.
        name: of its folder.
    """

    batch, layer = 1, "pooled"

    def __init__(self, served: Served, name: str) -> None:
        self._served, self.name, self.fingerprint = served, name, fingerprint(name)
        config = served.config
        self.frames, self.steps = int(config.n_obs_steps), int(config.n_action_steps)
        self.horizon = chunk_length(config)

    def check(self, world: World) -> None:
        """As `check_fit`."""
        check_fit(self._served.config.input_features, self._served.config.output_features, world, self.name)

    def draw(self, questions: Sequence[Question]) -> list[Drawn]:
        """Chunks, and features where the policy shows any."""
        return [self._draw(question) for question in questions]

    def _draw(self, question: Question) -> Drawn:
        context = self._served.encode([frame.columns for frame in question.frames], question.frames[-1].instruction)
        chunks = self._served.sample(context, question.k, question.seed)
        return Drawn(chunks, self._served.features(context, self.layer))


def encodable(questions: Sequence[Question], config: Any) -> dict[str, Any]:
    """The batch of observations that one of our policies encodes for these questions."""
    histories = [[frame.columns for frame in question.frames] for question in questions]
    return observation_batch(histories, [question.frames[-1].instruction for question in questions], config)


def _numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
