"""Behaviour cloning: demonstrations to a VLAPolicy. `train_bc` is `vla-rl train bc`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from numpy.typing import NDArray
from torch import Tensor, nn

from vla_rl.data.cache import FrameCache, build
from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.combinations import Combination, spelled
from vla_rl.data.sampler import ChunkSampler
from vla_rl.learn.augment import Augmentation
from vla_rl.learn.checkpoint import Checkpoint, CheckpointError, CheckpointStore
from vla_rl.learn.config import BCConfig
from vla_rl.learn.feed import step_seed
from vla_rl.learn.report import counter
from vla_rl.learn.run import check_out
from vla_rl.learn.train import Learner, Training, make_accelerator
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import Stats, compute_stats
from vla_rl.policy.processor_vla_rl import make_vla_rl_pre_post_processors
from vla_rl.policy.words import tokenize

STATE = "observation.state"
AUGMENT, HOLDOUT = 1, 2  # streams of `step_seed`


def train_bc(config: BCConfig, progress: bool = True, kind: type[BehaviourCloning] | None = None) -> dict[str, Any]:
    """Train a policy, or go on training one.

    On one CPU, with the same number of threads and a budget in steps, a run that was stopped and resumed equals one
    that was not, bit for bit. A budget in minutes follows the clock: nothing is lost there, but the steps differ.

    Args:
        config: the whole run.
        progress: whether to show a bar, or lines where there is no terminal.
        kind: which cloning, BehaviourCloning by default.

    Returns:
        JSON-ready: `stopped` ("done" or "interrupted"), `steps`, `checkpoint` (a LeRobot policy folder), ...

    Raises:
        ValueError: data, config, --out or the checkpoint cannot be used; or the loss diverged (`Diverged`), and then
            the last good weights are saved.
        OSError: no room for the data cache or the last checkpoint.
    """
    if not config.out or not config.data:
        raise ValueError("a run needs data (a LeRobotDataset v3 folder, or several) and out (the folder of the run)")
    out = Path(config.out)
    check_out(out, config)
    accelerator = make_accelerator(config)
    checkpoint = newest(out) if config.resume else None
    with accelerator.main_process_first(), counter("decoding", progress and accelerator.is_main_process) as show:
        caches = [build(root, config.cache or None, config.image_size or None, progress=show) for root in config.data]
    rank, world = accelerator.process_index, accelerator.num_processes
    learner = (kind or BehaviourCloning)(config, caches, checkpoint, accelerator.device, rank, world)
    if progress and accelerator.is_main_process:
        for line in learner.remarks():
            print(line, file=sys.stderr)
    return Training(config, learner, out, accelerator, checkpoint, progress).run()


def newest(out: Path) -> Checkpoint | None:
    """Where to go on from; None where the run was stopped before its first checkpoint.

    Raises:
        CheckpointError: there are checkpoints and none is whole.
    """
    store = CheckpointStore(out / "checkpoints")
    checkpoint = store.newest()
    if checkpoint is None and store.folders():
        raise CheckpointError(f"--resume: none of the {len(store.folders())} checkpoints in {out} is whole")
    return checkpoint


class _Loss(nn.Module):
    """A policy whose call is its loss, so that wrappers of `forward` (several processes, compilation) wrap training."""

    def __init__(self, policy: VLAPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy.loss(batch)


class BehaviourCloning(Learner):
    """Imitate the actions of a data set, given images, state and words."""

    def __init__(
        self,
        config: BCConfig,
        caches: Sequence[FrameCache],
        checkpoint: Checkpoint | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Make the policy, or load it from `checkpoint`.

        Args:
            config: of the run.
            caches: decoded data sets.
            checkpoint: where to go on from.
            device: of the model and its batches.
            rank: which process of
            world: this many; each takes its slice of every batch.
        """
        self.config, self.device, self.rank, self.world = config, device, rank, world
        place = device if _resident(config.on_device, caches, device) else None
        self.excluded = _excluded(caches, config)
        steps = int(_overrides(config).get("n_obs_steps", 1))
        self.data = _windows(caches, config, steps, device=place, pace=self._paces(len(caches)))
        self.held = _held_out(self.data, config.holdout, config.seed)
        self.sampler = ChunkSampler(np.where(self.held, 0.0, self._shares()), config.batch * world, config.seed)
        self.policy = (_load(checkpoint, self.data, config) if checkpoint else self._new(caches)).to(device)
        self.model: nn.Module = _Loss(self.policy)
        texts = (*self.data.tasks, "")
        self.text_index = {text: i for i, text in enumerate(texts)}
        self.words = tokenize(texts, multiple=8) if config.backbone == "tiny" else None
        self.augmentation = Augmentation(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Augmentation)})

    def _paces(self, count: int) -> list[float]:
        """How much faster than each of so many data sets the policy is to move."""
        return [self.config.pace] * count

    def _shares(self) -> NDArray[np.float64]:
        """Sampling weight of every frame, (len(data),)."""
        config = self.config
        return self.data.weights(config.decision_s, config.decision_share or None, config.balance or None)

    def _items(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """What is learned from frames, (B,)."""
        return self.data.batch(indices)

    def _new(self, caches: Sequence[FrameCache]) -> VLAPolicy:
        torch.manual_seed(step_seed(self.config.seed, 0))
        config = policy_config(self.data, self.config)
        numbers = _windows(caches, self.config, 1, cameras=(), pace=self._paces(len(caches)))
        return VLAPolicy(config, stats=_statistics(numbers, np.flatnonzero(~self.held), config.relative_mask))

    def batch(self, step: int) -> dict[str, Any]:
        """The augmented batch of a step, a pure function of it."""
        batch = self._on_device(self._with_tokens(self._items(self._indices(step))))
        chance = torch.Generator(self.device).manual_seed(step_seed(self.config.seed, step, self.rank, AUGMENT))
        return self.augmentation(batch, chance)

    def _with_tokens(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Words as tensors of one size where the backbone takes them: nothing to do each step, nothing to recompile."""
        if self.words is None:
            return batch
        texts = batch.pop("task")
        return {**batch, "task_tokens": self.words[[self.text_index[text] for text in texts]]}

    def _indices(self, step: int) -> NDArray[np.int64]:
        return self.sampler.indices(step)[self.rank :: self.world]

    def _on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        def move(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.device.type == self.device.type:
                return value
            return (value.pin_memory() if self.device.type == "cuda" else value).to(self.device, non_blocking=True)

        return {key: move(value) for key, value in batch.items()}

    def describe(self, step: int) -> str:
        """The data set positions and episodes of a step's batch."""
        places = [self.data.describe(int(i)) for i in self._indices(step)[:3]]
        return f"{'; '.join(places)}; and {len(self._indices(step)) - len(places)} more"

    @torch.no_grad()
    def score(self) -> float | None:
        """Loss on up to 8 fixed batches of the held-out episodes; None where none are held out."""
        if not self.held.any():
            return None
        rng = np.random.default_rng((self.config.seed, HOLDOUT))
        chosen = rng.choice(np.flatnonzero(self.held), (8, self.config.batch))
        torch.manual_seed(step_seed(self.config.seed, 0, stream=HOLDOUT))
        self.policy.eval()
        return float(np.mean([float(self.policy.loss(self._on_device(self._items(c)))[0]) for c in chosen]))

    def save(self, folder: Path) -> None:
        """Write a LeRobot policy folder: config.json, model.safetensors and the processors."""
        self.policy.save_pretrained(folder)
        for processor in make_vla_rl_pre_post_processors(self.policy.config):
            processor.save_pretrained(folder)

    def remarks(self) -> list[str]:
        """What of the data is not learned from, a line each."""
        count = len(self.data.episodes)
        unread = [name for name in self.data.observations if name != STATE]
        lines = [f"--exclude {rule} leaves out {n} of {count} episodes" for rule, n in self.excluded.items()]
        return [*lines, *(f"the policy does not read '{name}'" for name in unread)]

    def facts(self) -> dict[str, Any]:
        """Which data, how much of it, and what was held out."""
        return {
            "folders": list(self.config.data),
            "episodes": len(self.data.episodes),
            "excluded": self.excluded,
            "frames": len(self.data),
            "held_out_frames": int(self.held.sum()),
            "fps": self.data.fps,
            "cameras": self.data.cameras,
            "instructions": len(self.data.tasks),
            "action": self.data.action_column,
        }


def _windows(caches: Sequence[FrameCache], config: BCConfig, n_obs_steps: int, **options: Any) -> ChunkDataset:
    """The chunks of those episodes that the config does not leave out."""

    def keep(episode: Mapping[str, Any]) -> bool:
        return _asked_for(episode, config) and not any(rule.matches(episode) for rule in rules)

    rules = [Combination.parse(text) for text in config.exclude]
    return ChunkDataset(
        caches, config.horizon, n_obs_steps, _action_column(caches, config.action), keep=keep, **options
    )


def _action_column(caches: Sequence[FrameCache], setting: str) -> str:
    """The column to imitate; "auto" is the proposal where every frame of every set has a valid one."""
    if setting != "auto":
        return setting
    clean = all("policy_action" in c.columns and np.all(c.columns.get("policy_action_valid", False)) for c in caches)
    return "policy_action" if clean else "action"


def policy_config(data: ChunkDataset, config: BCConfig) -> VLAConfig:
    """The config of a policy for a data set: its features, names, rate and action spec, and what the run overrides.

    Raises:
        ValueError: an override names no field of the policy's config, or the data has nothing that the policy reads;
            the message lists what exists.
    """
    inputs = {
        camera: PolicyFeature(type=FeatureType.VISUAL, shape=(3, *size)) for camera, size in data.image_shapes.items()
    }
    if STATE in data.observations:
        inputs[STATE] = PolicyFeature(type=FeatureType.STATE, shape=(data.state_dim,))
    if not inputs:
        raise ValueError(
            f"the policy reads cameras and '{STATE}'; the data has: {', '.join(data.observations) or 'none'}"
        )
    fields: dict[str, Any] = {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(type=FeatureType.ACTION, shape=(data.action_dim,))},
        "fps": data.fps,
        "state_names": list(data.names.get(STATE, [])),
        "action_spec": dict(data.action_spec) or None,
        "horizon": config.horizon,
        "n_action_steps": min(VLAConfig.n_action_steps, config.horizon),
        "backbone": config.backbone,
        "head": config.head,
        "device": config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu",
    }
    return VLAConfig(**fields | _overrides(config))


def _overrides(config: BCConfig) -> dict[str, Any]:
    """`--policy key=value ...` as fields of VLAConfig; values are JSON, or else text."""
    names = {f.name for f in dataclasses.fields(VLAConfig)}
    fields: dict[str, Any] = {}
    for text in config.policy:
        key, found, value = text.partition("=")
        if not found or key not in names:
            raise ValueError(f"--policy {text}: expected key=value with a key of: {', '.join(sorted(names))}")
        try:
            fields[key] = json.loads(value)
        except json.JSONDecodeError:
            fields[key] = value
    return fields


def _statistics(numbers: ChunkDataset, rows: NDArray[np.int64], relative: Sequence[bool]) -> Stats:
    """Statistics of the rows that are trained on; `numbers` has one frame an observation and no cameras."""
    batch = numbers.batch(rows)
    state = batch[STATE].numpy() if STATE in batch else None
    return compute_stats(state, batch["action"].numpy(), batch["action_is_pad"].numpy(), relative)


def _load(checkpoint: Checkpoint, data: ChunkDataset, config: BCConfig) -> VLAPolicy:
    """The policy of a checkpoint, held against the data.

    Raises:
        CheckpointError: they differ in features, rate or names; the message lists both sides.
    """
    policy: VLAPolicy = VLAPolicy.from_pretrained(checkpoint.path)
    expected = policy_config(data, config)
    for name in ("input_features", "output_features", "fps", "state_names", "action_spec"):
        has, wants = getattr(policy.config, name), getattr(expected, name)
        if has != wants:
            raise CheckpointError(f"{checkpoint.path} and the data differ in {name}: {has} against {wants}")
    return policy


def _asked_for(episode: Mapping[str, Any], config: BCConfig) -> bool:
    """Whether an episode is among the first ones that --episodes takes of each data set."""
    return not config.episodes or int(episode["episode_index"]) < config.episodes


def _excluded(caches: Sequence[FrameCache], config: BCConfig) -> dict[str, int]:
    """How many episodes each rule of --exclude leaves out.

    Raises:
        ValueError: one matches none; the message lists the combinations that the data has.
    """
    episodes = [episode for cache in caches for episode in cache.episodes if _asked_for(episode, config)]
    counts = {text: sum(map(Combination.parse(text).matches, episodes)) for text in config.exclude}
    for text, count in counts.items():
        if not count:
            raise ValueError(
                f"--exclude {text} matches none of {len(episodes)} episodes; there are: {spelled(episodes)}"
            )
    return counts


def _held_out(data: ChunkDataset, share: float, seed: int) -> NDArray[np.bool_]:
    """Which frames belong to held-out episodes, (len(data),): `share` of them, one at least, chosen by the seed."""
    owner = data.episode_of(np.arange(len(data)))
    episodes = np.unique(owner)
    count = math.ceil(share * len(episodes))
    if 0 < len(episodes) <= count:
        raise ValueError(f"holdout {share} leaves none of {len(episodes)} episodes to train on")
    return np.isin(owner, np.random.default_rng((seed, HOLDOUT)).permutation(episodes)[:count])


def _resident(setting: str, caches: Sequence[FrameCache], device: torch.device) -> bool:
    """Whether the images are to lie in the device's memory: as told, or where they take less than half of the free."""
    if setting != "auto" or device.type != "cuda":
        return setting == "on"
    size = sum(image.nbytes for cache in caches for image in cache.images.values())
    return size < torch.cuda.mem_get_info(device)[0] / 2
