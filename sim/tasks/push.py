"""Push: one of two cubes onto the zone marked on the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.expert import Phase
from vla_rl.sim.motion import Goal
from vla_rl.sim.randomize import on_ring
from vla_rl.sim.scene import CUBE_HALF, PALETTE, add_cube, add_fixture
from vla_rl.sim.tasks.base import Task, raised
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert

CUBES = ("cube0", "cube1")
ZONE, ZONE_RADIUS, ZONE_COLOUR = "zone", 0.040, (0.12, 0.10, 0.14, 1.0)
CUBE_RADIUS = (0.15, 0.21)
CUBE_ANGLES = {"train": (0.53, 0.75), "positions": (0.36, 0.50)}
ZONE_RADII, ZONE_ANGLE = (0.165, 0.205), 0.10
STILL = 0.02
GAP = 0.40


class Push(Task):
    """A cube on either side of a dark disc; the named one is to be slid onto it."""

    name = "push"
    variants = 2

    def build(self, spec: mujoco.MjSpec) -> None:
        """Two cubes and a disc without thickness."""
        for cube in CUBES:
            add_cube(spec, cube)
        add_fixture(spec, ZONE).add_geom(
            name=ZONE, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[ZONE_RADIUS, 0.0005, 0], rgba=ZONE_COLOUR,
            contype=0, conaffinity=0,
        )  # fmt: skip

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """The zone in front of the arm, a cube to its left and one to its right."""
        chosen = rng.permutation(list(PALETTE))[: len(CUBES)]
        self.colours = dict(zip(CUBES, map(str, chosen), strict=True))
        x, y = on_ring(rng.uniform(*ZONE_RADII), rng.uniform(-ZONE_ANGLE, ZONE_ANGLE))
        self.world.place(ZONE, (x, y, 0.0005))
        angles = CUBE_ANGLES.get(level, CUBE_ANGLES["train"])
        for cube, side in zip(CUBES, (1, -1), strict=True):
            x, y = on_ring(rng.uniform(*CUBE_RADIUS), side * rng.uniform(*angles))
            self.world.place(cube, (x, y, CUBE_HALF), rng.uniform(-math.pi / 4, math.pi / 4))

    @property
    def cube(self) -> str:
        """Body of the named cube."""
        return CUBES[self.variant]

    @property
    def things(self) -> Mapping[str, str]:
        """The cubes by colour."""
        return {f"{colour} cube": cube for cube, colour in self.colours.items()}

    @property
    def slots(self) -> Mapping[str, str]:
        """The named cube and the zone."""
        return {"object": f"{self.colours[self.cube]} cube", "goal": "zone"}

    @property
    def goal_point(self) -> Array:
        """Where a cube in the middle of the zone has its centre."""
        return raised(self.world.position(ZONE), CUBE_HALF)

    @property
    def distance(self) -> float:
        """How far the named cube's centre is from the middle of the zone [m]."""
        return float(np.linalg.norm(self.object_point - self.goal_point))

    @property
    def satisfied(self) -> bool:
        """The named cube lies with its centre on the zone, nearly at rest."""
        return self.distance < ZONE_RADIUS and self.world.speed(self.cube) < STILL

    def phases(self, expert: Expert) -> list[Phase]:
        """Straddle the cube with open fingers along the line to the zone and slide it there with the rear one."""

        def straddle(height: float = 0.0) -> Goal:
            return expert.straddle(self.object_point, self.goal_point - self.object_point, GAP, height)

        def slide() -> Goal:
            gripper = expert.world.gripper
            closing = gripper.rotation[:, 0]
            # the cube tends to slip sideways off the finger: only the lead along the closing direction is kept
            lead = closing * (closing @ (gripper.position - self.object_point))
            return Goal(raised(self.goal_point + lead, -lead[2]), GAP, expert.stay(GAP).yaw, speed=0.9)

        def lost() -> bool:
            return float(np.linalg.norm(expert.world.gripper.position - self.object_point)) > 0.05

        return [
            Phase("above", lambda: straddle(expert.style.height), tolerance=0.012),
            Phase("descend", straddle, lost=lambda: expert.age > 60, perturb=False),
            Phase("push", slide, lambda: self.distance < ZONE_RADIUS, lost),
            Phase("centre", slide, lambda: self.satisfied, lost, perturb=False),
            Phase("stay", lambda: expert.stay(GAP), lost=lambda: expert.age > 30, perturb=False),
        ]
