"""Place: one of two cubes into one of two bins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.randomize import Region, on_ring, positions
from vla_rl.sim.scene import CUBE_HALF, PALETTE, add_cube, add_fixture
from vla_rl.sim.tasks.base import Task, raised
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert, Phase

CUBES = ("cube0", "cube1")
BINS = ("bin0", "bin1")
BIN_HALF, WALL, WALL_HEIGHT, FLOOR = 0.034, 0.002, 0.018, 0.002
BIN_RADIUS = (0.19, 0.21)
BIN_ANGLES = {"train": (0.62, 0.74), "positions": (0.80, 0.87)}
CARRY_HEIGHT, DROP = 0.05, 0.022
CUBE_REGION = Region(0.13, 0.235, 0.52)


def add_bin(spec: mujoco.MjSpec, name: str) -> None:
    """Add a shallow tray with four low walls; its geoms are called `name`, `name.0` ... `name.3`."""
    body = add_fixture(spec, name)
    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(name=name, type=box, size=[BIN_HALF, BIN_HALF, FLOOR / 2], pos=[0, 0, FLOOR / 2])
    for i in range(4):
        c, s = round(math.cos(i * math.pi / 2)), round(math.sin(i * math.pi / 2))
        size = [WALL if c else BIN_HALF, WALL if s else BIN_HALF, WALL_HEIGHT / 2]
        pos = [c * BIN_HALF, s * BIN_HALF, WALL_HEIGHT / 2]
        body.add_geom(name=f"{name}.{i}", type=box, size=size, pos=pos, friction=[0.3, 0.005, 1e-4])


class Place(Task):
    """Two cubes between two bins; the named cube is to lie in the named bin, let go of."""

    name = "place"
    variants = 4

    def build(self, spec: mujoco.MjSpec) -> None:
        """Two cubes and two bins."""
        for cube in CUBES:
            add_cube(spec, cube)
        for tray in BINS:
            add_bin(spec, tray)

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """A bin on the left, one on the right, the cubes between them; all colours drawn."""
        chosen = [*rng.permutation(list(PALETTE))[:2], *rng.permutation(list(PALETTE))[:2]]
        self._colour = dict(zip((*CUBES, *BINS), map(str, chosen), strict=True))
        self.colours = {cube: self._colour[cube] for cube in CUBES}
        self.colours |= {f"{tray}{part}": self._colour[tray] for tray in BINS for part in ("", ".0", ".1", ".2", ".3")}
        avoid = [self._place_bin(tray, side, rng, level) for tray, side in zip(BINS, (1, -1), strict=True)]
        places = positions(rng, level, len(CUBES), region=CUBE_REGION, avoid=avoid)
        for cube, (x, y), yaw in zip(CUBES, places, rng.uniform(-math.pi / 4, math.pi / 4, len(CUBES)), strict=True):
            self.world.place(cube, (x, y, CUBE_HALF), yaw)

    def _place_bin(self, tray: str, side: int, rng: np.random.Generator, level: str) -> tuple[float, float, float]:
        """Put a bin on its side of the table; returns the disc that the cubes keep out of."""
        angles = BIN_ANGLES.get(level, BIN_ANGLES["train"])
        x, y = on_ring(rng.uniform(*BIN_RADIUS), side * rng.uniform(*angles))
        self.world.place(tray, (x, y, 0.0), rng.uniform(-0.15, 0.15))
        return x, y, 2 * BIN_HALF + CUBE_HALF

    @property
    def cube(self) -> str:
        """Body of the named cube."""
        return CUBES[self.variant % 2]

    @property
    def bin(self) -> str:
        """Body of the named bin."""
        return BINS[self.variant // 2]

    @property
    def things(self) -> Mapping[str, str]:
        """The cubes by colour."""
        return {f"{self._colour[cube]} cube": cube for cube in CUBES}

    @property
    def slots(self) -> Mapping[str, str]:
        """The named cube and the named bin."""
        return {"object": f"{self._colour[self.cube]} cube", "goal": f"{self._colour[self.bin]} bin"}

    @property
    def goal_point(self) -> Array:
        """Where a cube in the middle of the named bin has its centre."""
        return raised(self.world.position(self.bin), FLOOR + CUBE_HALF)

    @property
    def satisfied(self) -> bool:
        """The named cube is within the named bin's walls, below their rim, and let go of."""
        offset = self.world.rotation(self.bin).T @ (self.object_point - self.goal_point)
        inside = np.abs(offset[:2]).max() < BIN_HALF and offset[2] < WALL_HEIGHT - CUBE_HALF
        return bool(inside) and not self.world.touches(self.cube)

    def phases(self, expert: Expert) -> list[Phase]:
        """Pick it up, carry it over the bin, lower it, let go, back away."""
        return [*expert.pick(self.cube, height=CARRY_HEIGHT), *expert.put(self.cube, self._over, DROP)]

    def _over(self) -> Array:
        """Where the cube touches the floor of the bin."""
        return self.goal_point
