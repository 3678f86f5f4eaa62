"""LoadedCritic: a critic's folder, ready to score candidates. RobotCritic: the same behind the border to radians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.policy.inputs import Columns, observation_batch
from vla_rl.policy.layers import features_of
from vla_rl.policy.normalize import STATE
from vla_rl.types import Array, Candidates, RobotSpec
from vla_rl.value.checkpoint import CriticFolder, load_critic, require_fit
from vla_rl.value.critic import CriticContext

Numbers = NDArray[np.floating[Any]] | Tensor


class LoadedCritic:
    """Scores chunks in the data set's units: one context an observation, one batched pass for all its candidates.

    Args:
        folder: from `load_critic`.
        device: where it computes.

    Attributes:
        card: what the checkpoint says of itself.
        members: critics in the ensemble, E.
        distribution: whether they know the return's distribution.
        window: actions of a chunk that are scored, h.
        encoder: "policy" where it reads the policy's features, "own" where it has an encoder of its own.
        layer: which features.
    """

    def __init__(self, folder: CriticFolder, device: str = "cpu") -> None:
        self._critic, self._device = folder.critic.to(device).eval(), device
        config = folder.critic.config
        self.card: Mapping[str, Any] = folder.card
        self.members, self.window = int(config.ensemble), int(config.window)
        self.distribution = config.head != "mse"
        self.encoder, self.layer = str(config.encoder), str(config.layer)
        self._eyes = None if folder.encoder is None else _load_eyes(folder.encoder, device)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", *, trusted: bool = False) -> LoadedCritic:
        """Load a critic's folder.

        Args:
            folder: of `save_critic`.
            device: where it computes.
            trusted: load it even though its report failed.

        Raises:
            ValueError: it cannot be used, or its report says that it should not be.
        """
        loaded = cls(load_critic(folder, device), device)
        report = loaded.card.get("report") or {}
        if report.get("verdict") == "fail" and not trusted:
            reason = report.get("reason", "see `vla-rl eval --critic-report`")
            raise ValueError(f"critic {folder} failed its report ({reason}); --trust-critic loads it all the same")
        return loaded

    @property
    def notes(self) -> list[str]:
        """What a user should know about it, one line each."""
        report = self.card.get("report") or {}
        if not report:
            return ["the critic has no report: vla-rl eval --critic-report says whether it can be trusted"]
        failed = report.get("verdict") == "fail"
        return (
            [f"the critic failed its report ({report.get('reason', '')}) and is trusted all the same"] if failed else []
        )

    def require_fit(self, **other_side: Any) -> None:
        """Raise ValueError where it does not fit a policy or a robot: `value.checkpoint.require_fit`."""
        require_fit(self.card, **other_side)

    def require_frames(self, given: int, where: str) -> None:
        """Raise ValueError where its own encoder looks at more frames than it would be given: one would stand for all.

        Args:
            given: frames of an observation.
            where: who gives them.
        """
        wanted = 1 if self.eyes is None else int(self.eyes.n_obs_steps)
        if wanted > given:
            frames = "one" if given == 1 else str(given)
            raise ValueError(f"the critic's encoder wants {wanted} frames; {where} comes with {frames}")

    @property
    def spread(self) -> Tensor:
        """How much each action of a chunk varies in the training data, as the critic reads it, (A,)."""
        scale: Tensor = self._critic.chunk.scale
        return scale.square().mean(0).sqrt().cpu()

    @property
    def eyes(self) -> Any:
        """Config of its own encoder: what it looks through; None where it reads the policy's features."""
        return None if self._eyes is None else self._eyes.config

    @torch.inference_mode()
    def embed(self, features: Numbers, state: Numbers | None) -> Any:
        """The context of B observations.

        Args:
            features: (B, D).
            state: (B, S) in the data set's units, None where the critic reads none.
        """
        return self._critic.embed(self._tensor(features), None if state is None else self._tensor(state))

    @torch.inference_mode()
    def score_context(self, context: Any, chunks: Numbers, tau: float | None = None) -> Array:
        """Values of K chunks of each of B observations, (B, K, H, A): (E, B, K); with `tau` that lower quantile."""
        window = self._tensor(chunks)[..., : self.window, :]
        if window.shape[-2] < self.window:
            raise ValueError(
                f"chunks of {window.shape[-2]} actions are shorter than the critic's window, {self.window}"
            )
        said = self._critic.value(context, window) if tau is None else self._critic.quantile(context, window, tau)
        return np.asarray(said.double().cpu().numpy())

    def worth(self, context: Any, chunks: Tensor) -> Tensor:
        """The ensemble's mean value of chunks (B, K, H, A), (B, K), through which gradients reach the chunks."""
        with torch.inference_mode(False):
            usable = CriticContext(context.hidden.clone(), context.base.clone())
            return self._critic.value(usable, chunks.clone()[..., : self.window, :]).mean(0)

    def score(self, features: Numbers, state: Numbers | None, chunks: Numbers, tau: float | None = None) -> Array:
        """Values (E, B, K) of chunks (B, K, H, A) in the data set's units; see `embed` and `score_context`."""
        return self.score_context(self.embed(features, state), chunks, tau)

    @torch.inference_mode()
    def features_of(self, histories: Sequence[Sequence[Columns]], tasks: Sequence[str]) -> NDArray[np.float32]:
        """What its own encoder makes of B observations, (B, D).

        Args:
            histories: frames of each, oldest first.
            tasks: B instructions.

        Raises:
            ValueError: it has no encoder.
        """
        if self._eyes is None:
            raise ValueError(f"this critic reads the policy's features ('{self.layer}'); it has no encoder of its own")
        context = self._eyes.encode(observation_batch(histories, tasks, self._eyes.config))
        return np.asarray(features_of(context, self.layer).cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def distance(self, features: Numbers) -> Array:
        """How far features (B, D) are from the training data, (B,): 99% of that lie within 1; nan where unknown."""
        return np.asarray(self._critic.distance(self._tensor(features)).double().cpu().numpy())

    def _tensor(self, values: Numbers) -> Tensor:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values, dtype=np.float32))
        return tensor.to(self._device, torch.float32)


class RobotCritic:
    """A LoadedCritic for the candidates of one robot: joints in radians become the data set's units here.

    Args:
        critic: who scores.
        spec: of the robot.

    Raises:
        ValueError: the critic was trained for other joints, or needs what a single observation does not hold.
    """

    def __init__(self, critic: LoadedCritic, spec: RobotSpec) -> None:
        names = spec.lerobot_action_spec.names
        critic.require_fit(names=names, state_dim=len(names), where="the robot")
        critic.require_frames(1, "a robot's set")
        self._critic, self._spec = critic, spec
        self.members, self.distribution, self.window = critic.members, critic.distribution, critic.window
        self.cameras = () if critic.eyes is None else tuple(critic.eyes.camera_keys)

    def prepare(self, candidates: Candidates) -> tuple[Any, float]:
        """Context and distance of a set's observation: everything that its chunks share.

        Raises:
            ValueError: the set comes without what this critic reads.
        """
        seen = candidates.observation
        if seen is None:
            raise ValueError("the candidates come without the observation's state, which the critic reads")
        state = self._spec.to_lerobot(seen.joints).astype(np.float32)
        features = self._features(candidates, state)
        return self._critic.embed(features[None], state[None]), float(self._critic.distance(features[None])[0])

    def values(self, context: Any, chunks: Array, tau: float | None = None) -> Array:
        """Values (E, K) of chunks (K, H, A) [rad]."""
        return self._critic.score_context(context, self._spec.to_lerobot(chunks)[None], tau)[:, 0]

    def _features(self, candidates: Candidates, state: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._critic.eyes is None:
            if candidates.context is None:
                raise ValueError("the policy shows no features, which this critic reads; train one with --encoder own")
            return candidates.context
        assert candidates.observation is not None
        from vla_rl.policy.configuration_vla_rl import IMAGES

        frame = {f"{IMAGES}{name}": image for name, image in candidates.observation.images.items()} | {STATE: state}
        if missing := sorted(set(self._critic.eyes.camera_keys.values()) - set(frame)):
            raise ValueError(f"the candidates come without {', '.join(missing)}, which the critic's encoder looks at")
        return self._critic.features_of([[frame]], [candidates.observation.instruction])[0]


def _load_eyes(folder: Path, device: str) -> Any:
    """The encoder in a critic's folder."""
    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    return VLAPolicy.from_pretrained(folder).to(device).eval()
