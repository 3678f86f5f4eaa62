"""Actors that run a learned policy: ours batched over episodes, any other LeRobot policy one episode at a time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.observe.image import resize
from vla_rl.policy import ensemble
from vla_rl.rollout.play import Actor, Job, Proposal
from vla_rl.rollout.world import Frame, World
from vla_rl.types import Source

ENSEMBLES = ("none", "temporal", "adaptive")
SELECTORS = ("first",)


@dataclass(frozen=True)
class Plan:
    """How chunks are chosen and executed.

    Attributes:
        steps_per_chunk: actions executed before the next chunk is asked for; 0 takes the policy's own number.
        ensemble: how chunks that overlap are joined: the newest alone, temporal (ACT) or adaptive (CogACT).
        candidates: chunks drawn for each observation, K.
        selector: which of the K is executed.
        batch: observations the network sees at once. A fixed size, filled up where fewer are due: the result of an
            episode then does not depend on which others were in the batch.
        slots: episodes under way at once.
    """

    steps_per_chunk: int = 0
    ensemble: str = "none"
    candidates: int = 1
    selector: str = "first"
    batch: int = 8
    slots: int = 16

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        for what, name, known in (("ensemble", self.ensemble, ENSEMBLES), ("selector", self.selector, SELECTORS)):
            if name not in known:
                raise ValueError(f"unknown {what} '{name}'; there are: {', '.join(known)}")
        if self.steps_per_chunk < 0 or min(self.candidates, self.batch, self.slots) < 1:
            raise ValueError("--candidates, batch and slots must be at least 1, --steps-per-chunk at least 0")


def read_config(folder: str | Path) -> dict[str, Any]:
    """A policy folder's config.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
        return {**config, "type": str(config["type"])}
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not a policy folder: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a policy: {error}") from error


def load_actor(folder: str, plan: Plan, device: str) -> Actor:
    """The actor of a policy folder: ours, or one of LeRobot's through its own factory.

    Raises:
        ValueError: it can not be loaded.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if read_config(folder)["type"] != "vla_rl":
        return LeRobotActor(folder, plan, chosen)
    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    policy = VLAPolicy.from_pretrained(folder).to(chosen).eval()
    return ChunkActor(policy, plan, folder)


@dataclass(eq=False)
class _Episode:
    """What a policy remembers of one episode."""

    generator: torch.Generator
    frames: deque[Frame]
    chunks: deque[tuple[int, NDArray[np.float32]]] = field(default_factory=deque)  # (step it begins at, (H, A))
    step: int = 0
    asked: int = 0


class ChunkActor:
    """Our policy: one encoding and K chunks for every episode that is due, chunks executed open loop or ensembled."""

    def __init__(self, policy: Any, plan: Plan, name: str) -> None:
        self._policy, self._plan, self._name = policy, plan, name
        self.slots = plan.slots
        self.period = plan.steps_per_chunk or int(policy.config.n_action_steps)
        if self.period > policy.config.horizon:
            raise ValueError(
                f"--steps-per-chunk {self.period} is longer than the policy's chunk ({policy.config.horizon})"
            )
        # A sampler that draws noise at every step draws it for the whole batch: only alone is it the episode's own.
        self._batch = 1 if policy.config.scheduler == "ddpm" else plan.batch
        self._episodes: dict[int, _Episode] = {}

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Check that the world fits the policy, and seed this episode's sampling noise."""
        check_fit(self._policy.config.input_features, self._policy.config.output_features, world, self._name)
        generator = torch.Generator().manual_seed(seed)
        self._episodes[slot] = _Episode(generator, deque(maxlen=self._policy.config.n_obs_steps))

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """Actions of the chunks under way; whose time has run out gets a new chunk first."""
        for slot, frame in frames.items():
            self._episodes[slot].frames.append(frame)
        due = [slot for slot in frames if self._episodes[slot].step % self.period == 0]
        for start in range(0, len(due), self._batch):
            self._replan(due[start : start + self._batch])
        return {slot: self._next(self._episodes[slot]) for slot in frames}

    @torch.inference_mode()
    def _replan(self, slots: list[int]) -> None:
        """New chunks for these slots; the batch is filled up to its fixed size with copies of the last one."""
        config, episodes = self._policy.config, [self._episodes[slot] for slot in slots]
        shape = (self._plan.candidates, config.horizon, config.action_dim)
        noise = [torch.randn(shape, generator=episode.generator) for episode in episodes]
        histories = [list(episode.frames) for episode in episodes]
        spare = self._batch - len(slots)
        context = self._policy.encode(observation_batch(histories + histories[-1:] * spare, config))
        noise_batch = torch.stack(noise + noise[-1:] * spare).to(self._policy.device)
        chunks = self._policy.sample(context, self._plan.candidates, episodes[0].generator, noise=noise_batch)
        for episode, candidates in zip(episodes, chunks.float().cpu().numpy(), strict=False):  # (K, H, A) each
            episode.chunks.append((episode.step, candidates[0]))
            episode.asked += 1

    def _next(self, episode: _Episode) -> Proposal:
        """What the chunks under way say about this step."""
        horizon = self._policy.config.horizon
        while episode.chunks[0][0] + horizon <= episode.step:
            episode.chunks.popleft()
        starts, chunks = zip(*episode.chunks, strict=True)
        action = join(ensemble.predictions_for(episode.step, starts, chunks), self._plan.ensemble)
        episode.step += 1
        return Proposal(action, action, Source.POLICY, chunk=episode.asked - 1, selected=0)


def join(predictions: NDArray[Any], how: str) -> NDArray[np.float32]:
    """One action (A,) from N predictions of it, (N, A), oldest first."""
    functions = {"temporal": ensemble.temporal_ensemble, "adaptive": ensemble.adaptive_ensemble}
    joined = predictions[-1] if how == "none" else functions[how](predictions)
    return np.asarray(joined, dtype=np.float32)


def observation_batch(histories: list[list[Frame]], config: Any) -> dict[str, Any]:
    """A policy's batch from the newest frames of several episodes (oldest first; the first repeats at a start).

    Returns:
        images (B, 3, H, W) uint8 and states (B, S) float32, with a time axis behind B where the policy sees several
        frames, and `task`: one instruction an episode.
    """
    steps = int(config.n_obs_steps)
    padded = [[*[history[0]] * (steps - len(history)), *history] for history in histories]
    batch: dict[str, Any] = {"task": [history[-1].instruction for history in histories]}
    for key in config.input_features:
        shape = tuple(config.input_features[key].shape)
        values = np.stack(
            [[_fitted(frame.columns[key], shape) for frame in history] for history in padded]
        )  # (B, To, ...)
        batch[key] = torch.from_numpy(values if steps > 1 else values[:, 0])
    return batch


def _fitted(value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A column as the policy takes it: images (H, W, 3) become (3, h, w) at its resolution, as training saw them."""
    if value.dtype != np.uint8:
        return value
    return np.ascontiguousarray(np.moveaxis(resize(value, (shape[1], shape[2])), -1, 0))


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


class LeRobotActor:
    """Any LeRobot policy, through its own factory, processors and action queue."""

    slots = 1
    period = 1

    def __init__(self, folder: str, plan: Plan, device: str) -> None:
        if plan != Plan(slots=plan.slots, batch=plan.batch):
            raise ValueError(
                f"{folder} is not a vla_rl policy: it runs as LeRobot runs it, without --candidates or --ensemble"
            )
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
        kind = read_config(folder)["type"]
        self._policy = get_policy_class(kind).from_pretrained(folder).to(device).eval()
        self._policy.config.device = device
        overrides = {"device_processor": {"device": device}}
        self._before, self._after = make_pre_post_processors(
            self._policy.config, pretrained_path=folder, preprocessor_overrides=overrides
        )
        self._name = folder

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Check the fit, empty the policy's queue, and seed torch: these policies draw from its global generator."""
        config = self._policy.config
        check_fit(config.input_features, config.output_features, world, self._name)
        self._policy.reset()
        torch.manual_seed(seed)

    @torch.inference_mode()
    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """The next action of the policy's own queue."""
        return {slot: self._propose(frame) for slot, frame in frames.items()}

    def _propose(self, frame: Frame) -> Proposal:
        batch: dict[str, Any] = {"task": [frame.instruction]}
        for key, value in frame.columns.items():
            tensor = torch.from_numpy(value)[None]
            batch[key] = tensor.permute(0, 3, 1, 2).float() / 255.0 if value.dtype == np.uint8 else tensor
        action = self._after(self._policy.select_action(self._before(batch)))[0].float().cpu().numpy()
        return Proposal(action, action, Source.POLICY)
