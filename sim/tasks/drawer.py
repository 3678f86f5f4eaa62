"""Drawer: pull one of two open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.expert import CLOSED, Phase
from vla_rl.sim.motion import Goal, along
from vla_rl.sim.randomize import on_ring
from vla_rl.sim.scene import PALETTE, add_fixture
from vla_rl.sim.tasks.base import Task, closeness, raised
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert

DRAWERS = ("drawer0", "drawer1")
WIDTH, DEPTH, HEIGHT, BOARD = 0.030, 0.028, 0.030, 0.002
HANDLE_HALF, HANDLE_HEIGHT, HANDLE_GAP = 0.006, 0.042, 0.032
TRAVEL, OPEN = 0.060, 0.040
FRICTION, DAMPING = 0.3, 2.0
HANDLE_COLOUR = (0.12, 0.12, 0.14, 1.0)
RADIUS = (0.250, 0.262)
ANGLES = {"train": (0.29, 0.46), "positions": (0.17, 0.27)}
GRASP_HEIGHT = 0.022
GAP = 0.33
COLOURED = (".top", ".back", ".side0", ".side1")


def add_drawer(spec: mujoco.MjSpec, name: str) -> None:
    """Add a cabinet that holds a drawer, which slides along the cabinet's -x, with a post for a handle.

    The drawer's body and slide joint are called `name`; coloured are its front, `name`, and the cabinet's boards.
    """
    cabinet = add_fixture(spec, f"{name}_cabinet")
    wall = HEIGHT / 2 - BOARD
    _board(cabinet, f"{name}.top", (DEPTH, WIDTH, BOARD), (0, 0, HEIGHT - BOARD))
    _board(cabinet, f"{name}.back", (BOARD, WIDTH, wall), (DEPTH - BOARD, 0, wall))
    for i, side in enumerate((-1, 1)):
        _board(cabinet, f"{name}.side{i}", (DEPTH, BOARD, wall), (0, side * (WIDTH - BOARD), wall))
    drawer = cabinet.add_body(name=name)
    drawer.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[-1, 0, 0], range=[0, TRAVEL],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, frictionloss=FRICTION, damping=[DAMPING, 0, 0],
    )  # fmt: skip
    front = -DEPTH - BOARD
    _board(drawer, name, (BOARD, WIDTH, HEIGHT / 2), (front, 0, HEIGHT / 2))
    _board(drawer, f"{name}.floor", (DEPTH - BOARD, WIDTH - 3 * BOARD, BOARD / 2), (-BOARD, 0, 2 * BOARD))
    _board(drawer, f"{name}.arm", (HANDLE_GAP / 2, HANDLE_HALF, BOARD), (front - HANDLE_GAP / 2, 0, 2 * BOARD))
    handle = (HANDLE_HALF, HANDLE_HALF, HANDLE_HEIGHT / 2)
    post = _board(drawer, f"{name}.handle", handle, (front - HANDLE_GAP, 0, HANDLE_HEIGHT / 2 + BOARD))
    post.rgba = HANDLE_COLOUR
    spec.add_exclude(bodyname1=f"{name}_cabinet", bodyname2=name)


def _board(
    body: mujoco.MjsBody, name: str, half: tuple[float, float, float], pos: tuple[float, float, float]
) -> mujoco.MjsGeom:
    return body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=pos, mass=0.01)


class Drawer(Task):
    """Two cabinets with a drawer each; the named drawer is to be opened."""

    name = "drawer"
    variants = 2

    def build(self, spec: mujoco.MjSpec) -> None:
        """Two cabinets."""
        for drawer in DRAWERS:
            add_drawer(spec, drawer)

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """A cabinet on the left and one on the right, their drawers opening towards the arm."""
        chosen = [str(c) for c in rng.permutation(list(PALETTE))[: len(DRAWERS)]]
        self._colour = dict(zip(DRAWERS, chosen, strict=True))
        self.colours = {f"{d}{part}": self._colour[d] for d in DRAWERS for part in ("", *COLOURED)}
        angles = ANGLES.get(level, ANGLES["train"])
        for drawer, side in zip(DRAWERS, (1, -1), strict=True):
            angle = side * rng.uniform(*angles)
            x, y = on_ring(rng.uniform(*RADIUS), angle)
            self.world.place(f"{drawer}_cabinet", (x, y, 0.0), angle + rng.uniform(-0.12, 0.12))
            self.world.set_joint(drawer, 0.0)

    @property
    def drawer(self) -> str:
        """Body of the named drawer."""
        return DRAWERS[self.variant]

    @property
    def things(self) -> Mapping[str, str]:
        """The drawers by colour."""
        return {f"{self._colour[drawer]} drawer": drawer for drawer in DRAWERS}

    @property
    def slots(self) -> Mapping[str, str]:
        """The named drawer."""
        return {"object": f"{self._colour[self.drawer]} drawer"}

    @property
    def outwards(self) -> Array:
        """Direction in which the named drawer opens, (3,), unit."""
        return -self.world.rotation(self.drawer)[:, 0]

    @property
    def object_point(self) -> Array:
        """Where the handle is to be taken."""
        reach = DEPTH + BOARD + HANDLE_GAP
        return raised(self.world.position(self.drawer) + reach * self.outwards, GRASP_HEIGHT)

    @property
    def goal_point(self) -> Array:
        """Where the handle is once the drawer is open."""
        return self.object_point + max(0.0, OPEN - self.opening) * self.outwards

    @property
    def opening(self) -> float:
        """How far the named drawer is open [m]."""
        return self.world.joint(self.drawer)

    @property
    def satisfied(self) -> bool:
        """The named drawer is open."""
        return self.opening > OPEN

    @property
    def progress(self) -> float:
        """Half for reaching the handle, half for opening."""
        if self.satisfied:
            return 1.0
        reach = closeness(self.world.gripper.position, self.object_point)
        return 0.4 * reach + 0.5 * min(1.0, max(0.0, self.opening / OPEN))

    def phases(self, expert: Expert) -> list[Phase]:
        """Reach round the handle with open fingers, close, pull."""

        def straddle(height: float = 0.0) -> Goal:
            return expert.straddle(self.object_point, self.outwards, GAP, height)

        def pull() -> Goal:
            position = expert.world.gripper.position + (TRAVEL - self.opening) * self.outwards
            position[2] = self.object_point[2]
            return Goal(position, CLOSED, along(self.outwards, self.object_point))

        def lost() -> bool:
            stuck = expert.phase.name == "close" and expert.age > 25
            return stuck or float(np.linalg.norm(expert.world.gripper.position - self.object_point)) > 0.04

        return [
            Phase("above", lambda: straddle(expert.style.height), tolerance=0.012),
            Phase("descend", straddle, lost=lambda: expert.age > 60, perturb=False),
            Phase("close", lambda: expert.stay(CLOSED), lambda: expert.world.holds(self.drawer), lost, perturb=False),
            Phase("pull", pull, lambda: self.satisfied, lost, lambda: expert.world.holds(self.drawer), perturb=False),
            Phase("stay", lambda: expert.stay(CLOSED), lost=lambda: expert.age > 30, perturb=False),
        ]
