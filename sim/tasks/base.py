"""Task: what lies on the table, what is asked for, and whether it is done.

A task is compiled once; every reset moves and recolours what is there. The scene depends on the seed alone, the variant
only decides which of its things is named, so that one scene can be used with several instructions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert, Phase
    from vla_rl.sim.world import World


def closeness(a: Array, b: Array) -> float:
    """1 where two points (3,) [m] coincide, falling to 0 over about 20 cm: a term of dense rewards."""
    return 1.0 - math.tanh(8.0 * float(np.linalg.norm(a - b)))


def delivery(gripper: Array, thing: Array, goal: Array) -> float:
    """Dense reward of bringing a thing to its goal, 0 to 0.9: a third for reaching it, two thirds for its way."""
    return 0.3 * closeness(gripper, thing) + 0.6 * closeness(thing, goal)


def raised(point: Array, height: float) -> Array:
    """The point (3,) `height` above another [m]."""
    return np.array([point[0], point[1], point[2] + height])


class Task(ABC):
    """One task on the table; subclasses say what there is, what is named and when it is done.

    Attributes:
        name: the task's name, as the command line has it.
        variants: how many different things of one scene can be asked for.
        time_limit: length of an episode [s].
        hold_time: how long `satisfied` must last for a success [s].
        world: the compiled world, there after `bind`.
        variant: which of the scene's things is asked for, 0 <= variant < variants.
        colours: geom name to the named colour it wears in this scene; `scatter` fills it, the randomiser paints it.
    """

    name: ClassVar[str]
    variants: ClassVar[int]
    time_limit: ClassVar[float] = 8.0
    hold_time: ClassVar[float] = 0.2

    world: World

    def __init__(self) -> None:
        self.variant = 0
        self.colours: dict[str, str] = {}

    def bind(self, world: World) -> None:
        """Remember the compiled world: called once, before the first `scatter`."""
        self.world = world

    def ask(self, variant: int) -> None:
        """Name one of the scene's things: called after every `scatter`."""
        self.variant = variant
        self._named = self.things[self.target]

    @abstractmethod
    def build(self, spec: mujoco.MjSpec) -> None:
        """Add this task's objects and fixtures to a scene that has the arm, the table, lights and cameras already."""

    @abstractmethod
    def scatter(self, rng: np.random.Generator, level: str) -> None:
        """Draw a scene: place everything with `self.world.place` and fill `self.colours`. Must not look at `variant`.

        Args:
            rng: the only source of chance.
            level: randomisation level; hand it to `randomize.positions`, which knows the held-out regions.
        """

    @property
    @abstractmethod
    def slots(self) -> Mapping[str, str]:
        """What fills the phrasing: `object` ("red cube") and, where the task has one, `goal` ("blue bin")."""

    @property
    @abstractmethod
    def things(self) -> Mapping[str, str]:
        """Name of every manipulable thing in this scene ("red cube") to its body: what `touched` can say."""

    @property
    @abstractmethod
    def satisfied(self) -> bool:
        """Whether what is asked for holds at this instant; it must hold for `hold_time` to count as a success."""

    @property
    def progress(self) -> float:
        """Dense reward of this instant, 0 at the start to 1 at success.

        Unless a task says otherwise: a third for reaching the thing, two thirds for bringing it to the goal.
        """
        if self.satisfied:
            return 1.0
        return delivery(self.world.gripper.position, self.object_point, self.goal_point)

    @abstractmethod
    def phases(self, expert: Expert) -> list[Phase]:
        """How the scripted expert does what is asked for: phases composed from `expert`'s building blocks."""

    @property
    def target(self) -> str:
        """Name of the thing asked for."""
        return self.slots["object"]

    @property
    def object_point(self) -> Array:
        """Where the named thing is, (3,) [m], base frame."""
        return self.world.position(self._named)

    @property
    def goal_point(self) -> Array:
        """Where it is to go, (3,) [m], base frame; the object's own point where the task has no goal."""
        return self.object_point
