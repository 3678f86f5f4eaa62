"""Actors that run a learned policy: ours batched over episodes, any other LeRobot policy one episode at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.execute import ensemble
from vla_rl.policy.folder import OWN_TYPE, choose_device, load_lerobot, read_config
from vla_rl.policy.inputs import observation_batch
from vla_rl.rollout.play import Actor, Job, Proposal
from vla_rl.rollout.world import Frame, World
from vla_rl.steer.selectors import make_selector, select
from vla_rl.types import Source

ENSEMBLES = ("none", "temporal", "adaptive")


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
        make_selector(self.selector)
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"unknown ensemble '{self.ensemble}'; there are: {', '.join(ENSEMBLES)}")
        if self.steps_per_chunk < 0 or min(self.candidates, self.batch, self.slots) < 1:
            raise ValueError("--candidates, batch and slots must be at least 1, --steps-per-chunk at least 0")


def load_actor(folder: str, plan: Plan, device: str) -> Actor:
    """The actor of a policy folder: ours, or one of LeRobot's through its own factory.

    Raises:
        ValueError: it can not be loaded.
    """
    chosen = choose_device(device)
    if read_config(folder)["type"] != OWN_TYPE:
        return LeRobotActor(folder, plan, chosen)
    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    policy = VLAPolicy.from_pretrained(folder).to(chosen).eval()
    return ChunkActor(policy, plan, folder)


@dataclass(eq=False)
class _Episode:
    """What a policy remembers of one episode."""

    generator: torch.Generator
    rng: np.random.Generator
    frames: deque[Frame]
    chunks: deque[tuple[int, NDArray[np.float32]]] = field(default_factory=deque)  # (step it begins at, (H, A))
    step: int = 0
    asked: int = 0
    selected: int = 0


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
        frames: deque[Frame] = deque(maxlen=self._policy.config.n_obs_steps)
        self._episodes[slot] = _Episode(generator, np.random.default_rng([seed, 2]), frames)

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
        filled = episodes + episodes[-1:] * (self._batch - len(slots))
        histories = [[frame.columns for frame in episode.frames] for episode in filled]
        tasks = [episode.frames[-1].instruction for episode in filled]
        context = self._policy.encode(observation_batch(histories, tasks, config))
        noise_batch = torch.stack(noise + noise[-1:] * (self._batch - len(slots))).to(self._policy.device)
        chunks = self._policy.sample(context, self._plan.candidates, episodes[0].generator, noise=noise_batch)
        for episode, candidates in zip(episodes, chunks.float().cpu().numpy(), strict=False):  # (K, H, A) each
            episode.selected = self._select(episode, candidates)
            episode.chunks.append((episode.step, candidates[episode.selected]))
            episode.asked += 1

    def _select(self, episode: _Episode, candidates: NDArray[np.float32]) -> int:
        """Which candidate (K, H, A) is executed; where none is finite the first, which the player refuses."""
        previous = episode.chunks[-1][1][episode.step - episode.chunks[-1][0] :] if episode.chunks else None
        rule, compared = make_selector(self._plan.selector), candidates[:, : self.period]
        choice = select(rule, compared, None, previous, episode.rng)
        return choice.index if choice else 0

    def _next(self, episode: _Episode) -> Proposal:
        """What the chunks under way say about this step."""
        horizon = self._policy.config.horizon
        while episode.chunks[0][0] + horizon <= episode.step:
            episode.chunks.popleft()
        starts, chunks = zip(*episode.chunks, strict=True)
        action = join(ensemble.predictions_for(episode.step, starts, chunks), self._plan.ensemble)
        episode.step += 1
        return Proposal(action, action, Source.POLICY, chunk=episode.asked - 1, selected=episode.selected)


def join(predictions: NDArray[Any], how: str) -> NDArray[np.float32]:
    """One action (A,) from N predictions of it, (N, A), oldest first."""
    functions = {"temporal": ensemble.temporal_ensemble, "adaptive": ensemble.adaptive_ensemble}
    joined = predictions[-1] if how == "none" else functions[how](predictions)
    return np.asarray(joined, dtype=np.float32)


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
        parts = load_lerobot(folder, device)
        self._policy, self._before, self._after = parts.policy, parts.before, parts.after
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
