"""MujocoRobot: the tabletop behind the one door to the world, in radians and in lock-step with its commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vla_rl.robot import Sensed
from vla_rl.sim.env import TabletopEnv
from vla_rl.types import Array, CameraSpec, Image, Observation


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
        self._epoch_ns = 0
        self.reset(seed)

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """A new scene, one period later: the robot's clock never goes back, and never shows 0."""
        self._epoch_ns = self.now_ns() + round(self.env.world.dt * 1e9)
        self.env.reset_scene(seed, options)
        self.reward, self.terminated, self.truncated, self.info = 0.0, False, False, self.env.info()
        self._status = {"success": 0.0, "reward": 0.0, "terminated": 0.0, "truncated": 0.0, "steps": 0.0,
                        "progress": self._progress}  # fmt: skip

    @property
    def instruction(self) -> str:
        """What to do in this episode."""
        return self.env.task_description

    def status(self) -> dict[str, float]:
        """What the task says of the episode so far; how it ended stays, though the world may go on.

        Returns:
            success, reward, terminated, truncated, steps; `progress` of the task in [0, 1]; `target/<thing>` and, once
            there is one, `touched/<thing>`.
        """
        named = {f"{key}/{self.info[key]}": 1.0 for key in ("target", "touched") if self.info[key]}
        return self._status | named

    @property
    def _progress(self) -> float:
        return float(self.info["labels"]["progress"][0])

    def expert(self, clumsy: bool = False, seed: int = 0, pace: float = 1.0) -> Callable[[], Array]:
        """The task's scripted expert, once a period: joint targets (J,) [rad], from things as they are then."""
        act = self.env.expert(clumsy, seed, pace).act
        return lambda: self.spec.from_lerobot(act().astype(np.float64))

    def now_ns(self) -> int:
        """Simulated time [ns]."""
        return self._epoch_ns + round(self.env.world.data.time * 1e9)

    def sense(self) -> Sensed:
        """The joints of now."""
        return Sensed(self.env.world.joints, self.env.world.velocities, self.now_ns())

    def pictures(self) -> dict[str, Image]:
        """What the cameras see now."""
        return {c: self.env.picture(c) for c in self.env.cameras}

    def observe(self) -> Observation:
        """Joints, pictures and the instruction of now; nothing is ever stale in lock-step."""
        images = self.pictures()
        ages = dict.fromkeys(("joints", *images), 0.0)
        return Observation(self.env.world.joints, images, self.env.task_description, self.now_ns(), ages)

    def command(self, targets: Array) -> Array:
        """Move towards joint targets (J,) [rad] for one period; returns them as the servos' limits let them through.

        Raises:
            ValueError: wrong size or a value that is not finite; nothing moved.
        """
        sent = self.checked(targets)
        self.env.world.advance(sent)
        self.judge()
        return sent

    def checked(self, targets: Array) -> Array:
        """Joint targets (J,) [rad] as the servos' limits let them through.

        Raises:
            ValueError: wrong size or a value that is not finite.
        """
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape != (len(self.spec.joints),) or not np.isfinite(targets).all():
            raise ValueError(f"a command is {len(self.spec.joints)} finite joint targets, got {targets}")
        return np.clip(targets, self.spec.low, self.spec.high)

    def judge(self) -> None:
        """Ask the task what came of the period that has just ended."""
        self.reward, self.terminated, self.truncated, self.info = self.env.judge()
        status = self._status
        status["reward"], status["progress"] = self.reward, self._progress
        if not (status["terminated"] or status["truncated"]):
            status["steps"] += 1.0
            status["terminated"], status["truncated"] = float(self.terminated), float(self.truncated)
            status["success"] = float(self.info["is_success"])

    def hold(self) -> Array:
        """Stay for one period: arm joints where they are, the gripper at its last command, which keeps its grip."""
        return self.command(self.stay())

    def stay(self) -> Array:
        """Targets (J,) [rad] that hold the arm where it is and keep the grip."""
        grippers = np.array([j.gripper for j in self.spec.joints])
        return np.where(grippers, self.env.world.targets, self.env.world.joints)

    def close(self) -> None:
        """Close the renderer."""
        self.env.close()
