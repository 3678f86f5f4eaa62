"""Lift: one of three cubes of different colours, at least 5 cm off the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.randomize import positions
from vla_rl.sim.scene import CUBE_HALF, PALETTE, add_cube
from vla_rl.sim.tasks.base import Task

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert, Phase

CUBES = ("cube0", "cube1", "cube2")
HEIGHT = 0.05


class Lift(Task):
    """Three cubes; the named one is to be held above the table."""

    name = "lift"
    variants = 3

    def build(self, spec: mujoco.MjSpec) -> None:
        """Three cubes."""
        for cube in CUBES:
            add_cube(spec, cube)

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """Three of the palette's colours, three places, three headings."""
        chosen = rng.permutation(list(PALETTE))[: len(CUBES)]
        self.colours = dict(zip(CUBES, map(str, chosen), strict=True))
        places, yaws = positions(rng, level, len(CUBES)), rng.uniform(-math.pi / 4, math.pi / 4, len(CUBES))
        for cube, (x, y), yaw in zip(CUBES, places, yaws, strict=True):
            self.world.place(cube, (x, y, CUBE_HALF), yaw)

    @property
    def things(self) -> Mapping[str, str]:
        """The cubes by colour."""
        return {f"{colour} cube": cube for cube, colour in self.colours.items()}

    @property
    def slots(self) -> Mapping[str, str]:
        """The named cube."""
        return {"object": f"{self.colours[CUBES[self.variant]]} cube"}

    @property
    def height(self) -> float:
        """How far the named cube is off the table [m]."""
        return float(self.world.position(CUBES[self.variant])[2]) - CUBE_HALF

    @property
    def satisfied(self) -> bool:
        """The named cube is high enough."""
        return self.height >= HEIGHT

    @property
    def progress(self) -> float:
        """Half for reaching the cube, half for its height."""
        distance = float(np.linalg.norm(self.world.gripper.position - self.object_point))
        return 0.5 * (1.0 - math.tanh(8.0 * distance)) + 0.5 * min(1.0, max(0.0, self.height / HEIGHT))

    def phases(self, expert: Expert) -> list[Phase]:
        """Pick it up and stay."""
        return expert.pick(CUBES[self.variant])
