"""Button: press one of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from vla_rl.sim.expert import CLOSED, Phase
from vla_rl.sim.motion import Goal
from vla_rl.sim.randomize import Region, positions
from vla_rl.sim.scene import PALETTE, add_fixture
from vla_rl.sim.tasks.base import Task, closeness, raised
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert

BUTTONS = ("button0", "button1")
BOX_HALF, BOX_HEIGHT = 0.026, 0.018
CAP_RADIUS, CAP_HEIGHT = 0.019, 0.014
TRAVEL, PRESSED = 0.008, 0.005
STIFFNESS, DAMPING = 150.0, 2.0
HOUSING = (0.20, 0.20, 0.23, 1.0)
REGION = Region(0.14, 0.22, 0.75)


def add_button(spec: mujoco.MjSpec, name: str) -> None:
    """Add a box with a springy cap on top; the cap's body, geom and slide joint are called `name`."""
    box = add_fixture(spec, f"{name}_box")
    size = [BOX_HALF, BOX_HALF, BOX_HEIGHT / 2]
    box.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=[0, 0, BOX_HEIGHT / 2], rgba=HOUSING)
    cap = box.add_body(name=name, pos=[0, 0, BOX_HEIGHT])
    cap.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], range=[0, TRAVEL],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, stiffness=[STIFFNESS, 0, 0], damping=[DAMPING, 0, 0],
    )  # fmt: skip
    cap.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[CAP_RADIUS, CAP_HEIGHT / 2, 0],
        pos=[0, 0, CAP_HEIGHT / 2], mass=0.01,
    )  # fmt: skip
    spec.add_exclude(bodyname1=f"{name}_box", bodyname2=name)


class Button(Task):
    """Two buttons of different colours; the named one is to be pressed."""

    name = "button"
    variants = 2

    def build(self, spec: mujoco.MjSpec) -> None:
        """Two buttons."""
        for button in BUTTONS:
            add_button(spec, button)

    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """Two of the palette's colours, two places."""
        chosen = rng.permutation(list(PALETTE))[: len(BUTTONS)]
        self.colours = dict(zip(BUTTONS, map(str, chosen), strict=True))
        for button, (x, y) in zip(BUTTONS, positions(rng, level, 2, spacing=0.09, region=REGION), strict=True):
            self.world.place(f"{button}_box", (x, y, 0.0), rng.uniform(-0.4, 0.4))

    @property
    def button(self) -> str:
        """Body of the named button's cap."""
        return BUTTONS[self.variant]

    @property
    def things(self) -> Mapping[str, str]:
        """The buttons by colour."""
        return {f"{colour} button": button for button, colour in self.colours.items()}

    @property
    def slots(self) -> Mapping[str, str]:
        """The named button."""
        return {"object": f"{self.colours[self.button]} button"}

    @property
    def object_point(self) -> Array:
        """Centre of the cap's top."""
        return raised(self.world.position(self.button), CAP_HEIGHT)

    @property
    def depth(self) -> float:
        """How far the named button is pressed in [m]."""
        return self.world.joint(self.button)

    @property
    def satisfied(self) -> bool:
        """The named button is pressed in."""
        return self.depth > PRESSED

    @property
    def progress(self) -> float:
        """Half for reaching the button, half for pressing it."""
        if self.satisfied:
            return 1.0
        reach = closeness(self.world.gripper.position, self.object_point)
        return 0.5 * reach + 0.4 * min(1.0, max(0.0, self.depth / PRESSED))

    def phases(self, expert: Expert) -> list[Phase]:
        """Get above it with closed fingers, press, and stay."""
        return [
            Phase("above", lambda: self._over(expert.style.height - 0.02), tolerance=0.012),
            Phase("press", lambda: self._over(-TRAVEL), lambda: self.satisfied, lambda: expert.age > 60, perturb=False),
            Phase("hold", lambda: self._over(-TRAVEL), perturb=False, lost=lambda: expert.age > 30),
        ]

    def _over(self, height: float) -> Goal:
        """The closed fingertips over the middle of the cap, `height` above its rest position."""
        return Goal(raised(self.object_point, self.depth + height), CLOSED, speed=0.8)
