"""Stack: one of three cubes on another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.randomize import Region, positions
from vla_rl.sim.scene import PALETTE, add_cube
from vla_rl.sim.tasks.base import Task, raised
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert, Phase

CUBES = ("cube0", "cube1", "cube2")
PAIRS = tuple(permutations(range(len(CUBES)), 2))
HALF = 0.015
REGION = Region(0.14, 0.22, 0.75)
SPACING = 0.07
SIDEWAYS, HEIGHT = HALF, 0.006
STILL = 0.03
CARRY_HEIGHT, DROP = 0.055, 0.002


class Stack(Task):
    """Three cubes; the first named one is to stand on the second, let go of."""

    name = "stack"
    variants = len(PAIRS)
    hold_time = 0.3

    def build(self, spec: mujoco.MjSpec) -> None:
        """Three cubes, a little larger than elsewhere."""
        for cube in CUBES:
            add_cube(spec, cube, half=HALF)

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """Three of the palette's colours, three places, three headings."""
        chosen = rng.permutation(list(PALETTE))[: len(CUBES)]
        self.colours = dict(zip(CUBES, map(str, chosen), strict=True))
        places = positions(rng, level, len(CUBES), spacing=SPACING, region=REGION)
        for cube, (x, y), yaw in zip(CUBES, places, rng.uniform(-math.pi / 4, math.pi / 4, len(CUBES)), strict=True):
            self.world.place(cube, (x, y, HALF), yaw)

    @property
    def upper(self) -> str:
        """Body of the cube to be moved."""
        return CUBES[PAIRS[self.variant][0]]

    @property
    def lower(self) -> str:
        """Body of the cube to be stacked on."""
        return CUBES[PAIRS[self.variant][1]]

    @property
    def things(self) -> Mapping[str, str]:
        """The cubes by colour."""
        return {f"{colour} cube": cube for cube, colour in self.colours.items()}

    @property
    def slots(self) -> Mapping[str, str]:
        """The cube to be moved and the one to be stacked on."""
        return {"object": f"{self.colours[self.upper]} cube", "goal": f"{self.colours[self.lower]} cube"}

    @property
    def goal_point(self) -> Array:
        """Where the upper cube's centre belongs."""
        return raised(self.world.position(self.lower), 2 * HALF)

    @property
    def satisfied(self) -> bool:
        """The upper cube stands on the lower one, at rest and let go of."""
        offset = self.object_point - self.goal_point
        on_top = math.hypot(offset[0], offset[1]) < SIDEWAYS and abs(offset[2]) < HEIGHT
        return on_top and self.world.speed(self.upper) < STILL and not self.world.touches(self.upper)

    def phases(self, expert: Expert) -> list[Phase]:
        """Pick it up, carry it over the other cube, lower it, let go."""
        return [*expert.pick(self.upper, HALF, CARRY_HEIGHT), *expert.put(self.upper, lambda: self.goal_point, DROP)]
