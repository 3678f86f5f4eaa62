"""The MuJoCo tabletop as a LeRobot environment type: `--env.type=vla_rl --env.task=Lift-v0`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

TASKS = ("Lift-v0", "Place-v0", "Push-v0", "Stack-v0", "Button-v0", "Drawer-v0")
CAMERAS = ("front", "wrist")
JOINTS = 6


@EnvConfig.register_subclass("vla_rl")
@dataclass
class TabletopEnvConfig(EnvConfig):
    """One or several tasks on the SO-101 tabletop.

    Attributes:
        task: one of TASKS, several with commas between them, or "all".
        fps: control rate [Hz].
        episode_length: upper bound on an episode [steps]; tasks have shorter limits of their own.
        randomisation: none, train, positions or looks.
        phrasings: train or unseen.
        image_size: side of the square images [pixels].
        render_mode: how LeRobot films episodes.
    """

    task: str | None = "Lift-v0"
    fps: int = 30
    episode_length: int = 900
    randomisation: str = "train"
    phrasings: str = "train"
    image_size: int = 96
    render_mode: str = "rgb_array"

    def __post_init__(self) -> None:
        """Declare the features; raise ValueError for a task that does not exist."""
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"unknown task '{', '.join(unknown)}'; there are: {', '.join(TASKS)}, all")
        image = PolicyFeature(type=FeatureType.VISUAL, shape=(self.image_size, self.image_size, 3))
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(JOINTS,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(JOINTS,)),
            **{f"pixels/{camera}": image for camera in CAMERAS},
        }
        self.features_map = {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{camera}": f"observation.images.{camera}" for camera in CAMERAS},
        }

    @property
    def tasks(self) -> list[str]:
        """The tasks named in `task`."""
        return list(TASKS) if self.task == "all" else [name.strip() for name in (self.task or "").split(",")]

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `gymnasium.make`."""
        return {
            "randomisation": self.randomisation,
            "phrasings": self.phrasings,
            "image_size": self.image_size,
            "render_mode": self.render_mode,
            "max_episode_steps": self.episode_length,
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """One vector environment a task: {"vla_rl": {index: environment}}."""
        return {self.type: {i: self._vector(task, n_envs, use_async_envs) for i, task in enumerate(self.tasks)}}

    def _vector(self, task: str, n_envs: int, use_async: bool) -> VectorEnv:
        make = partial(gymnasium.make, f"vla_rl.sim:vla_rl/{task}", disable_env_checker=True, **self.gym_kwargs)
        if use_async and n_envs > 1:
            return AsyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP, context="forkserver")
        return SyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
