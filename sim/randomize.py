"""Randomisation as pure functions of (model, rng): each returns what to write and changes nothing.

Levels: `none` (one fixed scene), `train`, and two held-out ones: `positions` (things lie where none lay in training)
and `looks` (shades, light, table and camera offsets from ranges that training never draws from).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from vla_rl.sim.scene import PALETTE, PAN_AXIS
from vla_rl.types import Array

LEVELS = ("none", "train", "positions", "looks")
HELD_OUT_ANGLES = ((-0.44, -0.26), (0.26, 0.44))

Range = tuple[float, float]


@dataclass(frozen=True)
class Region:
    """A piece of a ring around the arm's pan axis: radii [m] and half opening angle [rad]."""

    inner: float = 0.13
    outer: float = 0.25
    half_angle: float = 0.60


REACH = Region()


@dataclass(frozen=True)
class Looks:
    """Ranges that a level draws from: multiples of saturation and value, hue shift, light, camera offsets.

    Camera offsets are magnitudes: position [m] and angle [rad] about a random axis.
    """

    saturation: Range
    value: Range
    hue: float
    table_hue: Range
    table_saturation: Range
    table_value: Range
    light: Range
    lamp_tilt: Range
    camera_shift: Range
    camera_turn: Range


LOOKS: Mapping[str, Looks] = {
    "train": Looks(
        saturation=(0.85, 1.0), value=(0.85, 1.08), hue=0.012, table_hue=(0.05, 0.14), table_saturation=(0.0, 0.15),
        table_value=(0.50, 0.74), light=(0.85, 1.15), lamp_tilt=(0.0, 0.35),
        camera_shift=(0.0, 0.002), camera_turn=(0.0, math.radians(0.3)),
    ),
    "looks": Looks(
        saturation=(0.62, 0.78), value=(0.68, 0.80), hue=0.02, table_hue=(0.50, 0.62), table_saturation=(0.10, 0.25),
        table_value=(0.34, 0.46), light=(0.68, 0.82), lamp_tilt=(0.45, 0.8),
        camera_shift=(0.003, 0.005), camera_turn=(math.radians(0.4), math.radians(0.8)),
    ),
}  # fmt: skip


def check_level(level: str) -> None:
    """Raise ValueError for a level that does not exist; the message lists those that do."""
    if level not in LEVELS:
        raise ValueError(f"unknown randomisation level '{level}'; there are: {', '.join(LEVELS)}")


def held_out(angle: float) -> bool:
    """Whether an angle about the pan axis [rad] lies in the wedges kept out of training."""
    return any(low <= angle <= high for low, high in HELD_OUT_ANGLES)


def on_ring(radius: float, angle: float) -> tuple[float, float]:
    """A point of the table (x, y) [m], base frame, from its radius [m] and angle [rad] about the pan axis."""
    return PAN_AXIS[0] + radius * math.cos(angle), PAN_AXIS[1] + radius * math.sin(angle)


def _polar(rng: np.random.Generator, region: Region) -> tuple[float, float]:
    """A radius and an angle, uniform over the region's area."""
    radius = math.sqrt(rng.uniform(region.inner**2, region.outer**2))
    return radius, rng.uniform(-region.half_angle, region.half_angle)


def positions(
    rng: np.random.Generator,
    level: str,
    n: int,
    spacing: float = 0.06,
    region: Region = REACH,
    avoid: Sequence[tuple[float, float, float]] = (),
) -> Array:
    """Where n things lie on the table, (n, 2) [m], base frame.

    Args:
        rng: the only source of chance.
        level: at `positions` all lie in the held-out wedges, at every other level none does.
        n: how many.
        spacing: least distance between two of them [m], so that the fingers fit between.
        region: where they may lie.
        avoid: discs (x, y, radius) [m] that they keep out of.

    Raises:
        ValueError: they do not fit.
    """
    for _ in range(200):
        found = _scatter(rng, level == "positions", n, spacing, region, avoid)
        if len(found) == n:
            return np.array(found).reshape(n, 2)
    raise ValueError(f"{n} things {spacing} m apart do not fit into {region} at level '{level}'")


def _scatter(
    rng: np.random.Generator, inside: bool, n: int, spacing: float, region: Region, avoid: Sequence[tuple[float, ...]]
) -> list[tuple[float, float]]:
    """One attempt: as many positions as 60 draws give."""
    found: list[tuple[float, float]] = []
    for _ in range(60):
        radius, angle = _polar(rng, region)
        x, y = on_ring(radius, angle)
        free = all(math.hypot(x - u, y - v) >= spacing for u, v in found)
        clear = all(math.hypot(x - u, y - v) >= r for u, v, r in avoid)
        if held_out(angle) == inside and free and clear:
            found.append((x, y))
        if len(found) == n:
            break
    return found


def _shade(colour: Sequence[float], rng: np.random.Generator, looks: Looks) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    return colorsys.hsv_to_rgb(
        (hue + rng.uniform(-looks.hue, looks.hue)) % 1.0,
        min(1.0, saturation * rng.uniform(*looks.saturation)),
        min(1.0, value * rng.uniform(*looks.value)),
    )


def _looks(level: str) -> Looks | None:
    return None if level == "none" else LOOKS.get(level, LOOKS["train"])


def colours(model: mujoco.MjModel, rng: np.random.Generator, level: str, named: Mapping[str, str]) -> dict[str, Array]:
    """Colours of every geom: the named ones in shades of their palette colour, the table in a tone of its own.

    Args:
        model: the nominal model.
        rng: the only source of chance.
        level: randomisation level.
        named: geom name to the name of its palette colour.

    Returns:
        `geom_rgba` (ngeom, 4).
    """
    rgba, looks = model.geom_rgba.copy(), _looks(level)
    for geom, colour in named.items():
        rgba[model.geom(geom).id, :3] = PALETTE[colour] if looks is None else _shade(PALETTE[colour], rng, looks)
    if looks is not None:
        tone = (rng.uniform(*looks.table_hue), rng.uniform(*looks.table_saturation), rng.uniform(*looks.table_value))
        rgba[model.geom("table").id, :3] = colorsys.hsv_to_rgb(*tone)
    return {"geom_rgba": rgba}


def light(model: mujoco.MjModel, rng: np.random.Generator, level: str) -> dict[str, Array]:
    """Brightness and direction of the lamp: `light_diffuse`, `light_dir` (nlight, 3)."""
    diffuse, direction, looks = model.light_diffuse.copy(), model.light_dir.copy(), _looks(level)
    if looks is not None:
        diffuse *= rng.uniform(*looks.light)
        heading, tilt = rng.uniform(-math.pi, math.pi), rng.uniform(*looks.lamp_tilt)
        direction[:] = [math.sin(tilt) * math.cos(heading), math.sin(tilt) * math.sin(heading), -math.cos(tilt)]
    return {"light_diffuse": diffuse, "light_dir": direction}


def _direction(rng: np.random.Generator) -> Array:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def cameras(model: mujoco.MjModel, rng: np.random.Generator, level: str) -> dict[str, Array]:
    """Where the cameras sit and look, a little off: `cam_pos` (ncam, 3), `cam_quat` (ncam, 4)."""
    pos, quat, looks = model.cam_pos.copy(), model.cam_quat.copy(), _looks(level)
    if looks is not None:
        for i in range(model.ncam):
            pos[i] += _direction(rng) * rng.uniform(*looks.camera_shift)
            turn = np.empty(4)
            mujoco.mju_axisAngle2Quat(turn, _direction(rng), rng.uniform(*looks.camera_turn))
            mujoco.mju_mulQuat(quat[i], quat[i].copy(), turn)
    return {"cam_pos": pos, "cam_quat": quat}


def physics(model: mujoco.MjModel, rng: np.random.Generator, level: str) -> dict[str, Array]:
    """Sliding friction of every geom and mass of every free body, within 15 % and 25 % of nominal."""
    friction, mass, inertia = model.geom_friction.copy(), model.body_mass.copy(), model.body_inertia.copy()
    if level != "none":
        friction[:, 0] *= rng.uniform(0.85, 1.15, model.ngeom)
        free = model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
        factor = rng.uniform(0.75, 1.25, len(free))
        mass[free] *= factor
        inertia[free] *= factor[:, None]
    return {"geom_friction": friction, "body_mass": mass, "body_inertia": inertia}


def draw(model: mujoco.MjModel, rng: np.random.Generator, level: str, named: Mapping[str, str]) -> dict[str, Array]:
    """All model fields of a scene: `colours`, `light`, `cameras` and `physics` together."""
    return {
        **colours(model, rng, level, named),
        **light(model, rng, level),
        **cameras(model, rng, level),
        **physics(model, rng, level),
    }
