"""TabletopBody: the SO-101 tabletop in engine steps, moved by servos outside, each with gains of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import mujoco
import numpy as np

from vla_rl.kinematics import Kinematics
from vla_rl.sim.arm import arm_model
from vla_rl.sim.env import TabletopEnv, home
from vla_rl.sim.mujoco_robot import MujocoRobot
from vla_rl.sim.render import Cameras
from vla_rl.sim.world import STATE
from vla_rl.types import Array, Image


class Motor(Protocol):
    """What a joint's motor does: pulls to a target [rad] with multiples of the model's gains and a limited torque."""

    @property
    def target(self) -> float: ...  # noqa: D102
    @property
    def stiffness(self) -> float: ...  # noqa: D102
    @property
    def damping(self) -> float: ...  # noqa: D102
    @property
    def torque(self) -> float: ...  # noqa: D102


class TabletopBody:
    """A task's table with the arm on it.

    Args:
        env: the tabletop; nobody else may step it.
        seed: of the first scene.
        camera_offsets: camera to x, y, z [m] and turns about its own x, y, z [rad] that it is off.

    Raises:
        ValueError: an offset of a camera that does not exist.
    """

    def __init__(
        self, env: TabletopEnv, seed: int | None = None, camera_offsets: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._robot = MujocoRobot(env, seed)
        self._world, self._offsets = env.world, dict(camera_offsets or {})
        self.spec, self.cameras = self._robot.spec, env.cameras
        if unknown := sorted(set(self._offsets) - set(self.cameras)):
            raise ValueError(f"no camera '{unknown[0]}' to be off; there are: {', '.join(self.cameras)}")
        self.step_s = float(self._world.model.opt.timestep)
        self.start = home(Kinematics(env.spec_robot, arm_model()))
        model = self._world.model
        self._gains = model.actuator_gainprm[:, 0].copy(), model.actuator_biasprm[:, 2].copy()
        self._phase = 0
        self._shift_cameras()

    @property
    def joints(self) -> Array:
        """Positions, (J,) [rad]."""
        return self._world.joints

    @property
    def velocities(self) -> Array:
        """(J,) [rad/s]."""
        return self._world.velocities

    @property
    def torques(self) -> Array:
        """What the motors give, (J,) [Nm]."""
        return self._world.data.actuator_force.copy()

    def advance(self, drives: Sequence[Motor]) -> None:
        """One engine step; every whole control period is judged, as in simulation."""
        model, (kp, kv) = self._world.model, self._gains
        target, stiffness, damping, torque = np.array([(d.target, d.stiffness, d.damping, d.torque) for d in drives]).T
        model.actuator_gainprm[:, 0] = kp * stiffness
        model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2] = -kp * stiffness, kv * damping
        model.actuator_forcerange[:, 0], model.actuator_forcerange[:, 1] = -torque, torque
        self._world.advance(target, 1)
        self._phase = (self._phase + 1) % self._world.substeps
        if self._phase == 0:
            self._robot.judge()

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None, place_arm: bool = True) -> None:
        """A new scene; the arm at its start, or left where it is."""
        joints = self.joints
        self._robot.reset(seed, options)
        self._shift_cameras()
        if not place_arm:
            self._world.place_arm(joints)
            self._world.settle()
        self._phase = 0

    def status(self) -> Mapping[str, float]:
        """What the task says of the episode so far."""
        return self._robot.status()

    @property
    def instruction(self) -> str:
        """What to do in this episode."""
        return self._robot.instruction

    def expert(self) -> Callable[[], Array]:
        """The task's scripted expert: joint targets (J,) [rad], from things as they are."""
        return self._robot.expert()

    def _shift_cameras(self) -> None:
        model = self._world.model
        for name, offset in self._offsets.items():
            camera, turn = model.camera(name).id, np.empty(4)
            mujoco.mju_euler2Quat(turn, np.asarray(offset[3:6], dtype=np.float64), "xyz")
            quat = model.cam_quat[camera].copy()
            mujoco.mju_mulQuat(model.cam_quat[camera], quat, turn)
            model.cam_pos[camera] += np.asarray(offset[:3])

    def snapshot(self) -> Array:
        """The engine's state: all that a picture of now depends on."""
        return self._world.save()

    def painter(self) -> Painter:
        """Somebody who draws snapshots, in the thread that asks."""
        return Painter(self._world.model, self._robot.env.image_size)

    def close(self) -> None:
        """Close the renderer."""
        self._robot.close()


class Painter:
    """Draws snapshots with a renderer of its own, while the world goes on. Of one thread alone, which closes it.

    Args:
        model: of the scene.
        size: of the pictures, height and width [pixels].
    """

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int]) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._cameras = Cameras(model, size)

    def draw(self, snapshot: Array, camera: str) -> Image:
        """What a camera saw, (H, W, 3) uint8 RGB."""
        mujoco.mj_setState(self._model, self._data, snapshot, STATE)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        return self._cameras.render(self._data, camera)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cameras.close()
