"""The table, the light, the cameras and the things that can lie on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from vla_rl.robot import arm_spec
from vla_rl.sim.arm import add_arm, new_spec
from vla_rl.types import RobotSpec

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.12, 0.12),
    "green": (0.13, 0.62, 0.22),
    "blue": (0.12, 0.30, 0.85),
    "yellow": (0.97, 0.82, 0.10),
}
CAMERAS = ("front", "wrist")
TABLE = (0.64, 0.62, 0.59, 1.0)
PAN_AXIS = (0.0388353, 0.0)
CUBE_HALF = 0.014
HIDDEN = 4
CUBE_MASS = 0.030


@dataclass(frozen=True)
class Quality:
    """How fine the picture is; shadows and multisampling cost a factor of 20 to 50 in software rendering.

    Attributes:
        shadows: draw shadows.
        samples: samples a pixel, 0 for no multisampling.
    """

    shadows: bool = False
    samples: int = 0


DEFAULT_QUALITY = Quality(shadows=True, samples=4)


def new_scene(quality: Quality | None = None) -> tuple[mujoco.MjSpec, RobotSpec]:
    """A scene with the arm, the table, the light and both cameras, ready for a task to add its things."""
    quality = quality or Quality()
    robot = arm_spec("so101")
    spec = new_spec()
    spec.visual.quality.offsamples = quality.samples
    spec.visual.quality.shadowsize = 4096 if quality.shadows else 0
    spec.visual.map.znear, spec.visual.map.zfar = 0.02, 20
    spec.stat.extent, spec.stat.center = 0.6, [0.15, 0, 0.05]
    spec.visual.headlight.ambient = [0.5, 0.5, 0.5]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0, 0, 0]
    _add_surroundings(spec, quality)
    add_arm(spec, robot)
    return spec, robot


def _add_surroundings(spec: mujoco.MjSpec, quality: Quality) -> None:
    world = spec.worldbody
    # contacts want a plane, but drawing one costs more than the arm: what is seen is a board
    world.add_geom(
        name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.05], group=HIDDEN, friction=[0.8, 0.005, 1e-4]
    )
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 0.01], pos=[0, 0, -0.0101], rgba=TABLE,
        contype=0, conaffinity=0,
    )  # fmt: skip
    world.add_light(
        name="lamp", pos=[0.35, 0.25, 0.9], dir=[-0.25, -0.3, -0.9], diffuse=[0.38, 0.38, 0.38], ambient=[0, 0, 0],
        specular=[0.1, 0.1, 0.1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=quality.shadows,
    )  # fmt: skip
    add_camera(spec, "front", eye=(0.455, 0.0, 0.455), target=(0.157, 0.0, 0.02), fovy=40.0)


def add_camera(
    spec: mujoco.MjSpec,
    name: str,
    eye: tuple[float, float, float],
    target: tuple[float, float, float],
    fovy: float,
) -> None:
    """Add a fixed camera that looks from `eye` at `target` in the plane y = const, upright."""
    pitch = math.atan2(eye[2] - target[2], eye[0] - target[0])
    sine, cosine = math.sin(pitch), math.cos(pitch)
    # columns: right, up, back: MuJoCo's cameras look along -z
    axes = np.array([[0.0, -sine, cosine], [1.0, 0.0, 0.0], [0.0, cosine, sine]])
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, axes.ravel())
    spec.worldbody.add_camera(name=name, pos=eye, quat=quat, fovy=fovy)


def add_cube(spec: mujoco.MjSpec, name: str, half: float = CUBE_HALF, mass: float = CUBE_MASS) -> mujoco.MjsBody:
    """Add a cube that moves freely; body, geom and joint all bear its name."""
    body = spec.worldbody.add_body(name=name, pos=[0.2, 0, half])
    body.add_freejoint(name=name)
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[half] * 3, mass=mass, rgba=[0.5, 0.5, 0.5, 1],
        friction=[0.8, 0.005, 1e-4],
    )  # fmt: skip
    return body


def add_fixture(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """Add an empty fixture that a reset can move: it does not fall and does not yield."""
    return spec.worldbody.add_body(name=name, mocap=True)
