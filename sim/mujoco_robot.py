"""MujocoRobot: the tabletop behind the one door to the world, in radians and in lock-step with its commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vla_rl.sim.env import TabletopEnv
from vla_rl.types import Array, CameraSpec, Observation


class MujocoRobot:
    """A Robot in MuJoCo: each command is one control period of simulated time.

    Args:
        env: the tabletop; the robot resets, steps and closes it.
        seed: of the first scene.

    Attributes:
        spec: joints, limits and the cameras as they are rendered.
        reward, terminated, truncated, info: what the task says of the last period.
    """

    def __init__(self, env: TabletopEnv, seed: int | None = None) -> None:
        self.env = env
        model, (height, width) = env.world.model, env.image_size
        cameras = tuple(CameraSpec(c, width, height, float(model.camera(c).fovy[0])) for c in env.cameras)
        self.spec = replace(env.spec_robot, cameras=cameras)
        self.reset(seed)

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """A new scene; simulated time starts at zero again."""
        self.env.reset_scene(seed, options)
        self.reward, self.terminated, self.truncated, self.info = 0.0, False, False, self.env.info()

    def now_ns(self) -> int:
        """Simulated time since the reset [ns]."""
        return round(self.env.world.data.time * 1e9)

    def observe(self) -> Observation:
        """Joints, pictures and the instruction of now; nothing is ever stale in lock-step."""
        images = {c: self.env.picture(c) for c in self.env.cameras}
        ages = dict.fromkeys(("joints", *images), 0.0)
        return Observation(self.env.world.joints, images, self.env.task_description, self.now_ns(), ages)

    def command(self, targets: Array) -> Array:
        """Move towards joint targets (J,) [rad] for one period; returns them as the servos' limits let them through.

        Raises:
            ValueError: wrong size or a value that is not finite; nothing moved.
        """
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape != (len(self.spec.joints),) or not np.isfinite(targets).all():
            raise ValueError(f"a command is {len(self.spec.joints)} finite joint targets, got {targets}")
        sent = np.clip(targets, self.spec.low, self.spec.high)
        self.env.world.advance(sent)
        self.reward, self.terminated, self.truncated, self.info = self.env.judge()
        return sent

    def hold(self) -> Array:
        """Stay for one period: arm joints where they are, the gripper at its last command, which keeps its grip."""
        grippers = np.array([j.gripper for j in self.spec.joints])
        return self.command(np.where(grippers, self.env.world.targets, self.env.world.joints))

    def close(self) -> None:
        """Close the renderer."""
        self.env.close()
