"""Scripted experts: a machine of phases that looks at the state of now, at every step.

Each phase says where the gripper should be and when it is over; the expert moves the gripper there with bounded
velocity and acceleration, through inverse kinematics. What it remembers, the phase and where it meant to be by now, is
tied to what it measures, so it answers whatever happened to the world since: a push, a slip, somebody else's commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vla_rl.kinematics import Kinematics
from vla_rl.sim.motion import Goal, Motion, along, straight
from vla_rl.sim.scene import CUBE_HALF
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.tasks.base import Task
    from vla_rl.sim.world import World

CLOSED = -0.05
RELEASED = 0.4
PAD_OFFSET = 0.020
CLEARANCE = 0.004
MID_GAP = 0.003
UP = np.array([0.0, 0.0, 1.0])


def never() -> bool:
    """The condition that does not occur."""
    return False


@dataclass(frozen=True)
class Phase:
    """One stretch of a movement.

    Attributes:
        name: for people.
        goal: where to go, asked at every step.
        done: when to go on to the next phase; None: once the goal is reached within `tolerance`.
        lost: when to begin again.
        ready: whether an expert who comes late may begin here: what leads up to it is done already.
        perturb: whether noise may be added to the commands without breaking what is under way.
        tolerance: distance that counts as reached [m].
    """

    name: str
    goal: Callable[[], Goal]
    done: Callable[[], bool] | None = None
    lost: Callable[[], bool] = never
    ready: Callable[[], bool] = never
    perturb: bool = True
    tolerance: float = 0.005


@dataclass(frozen=True)
class Style:
    """How an expert goes about it: drawn once an episode.

    Attributes:
        seed: of every choice made on the way.
        speed: multiple of the usual speed.
        tempo: how much faster everything goes, accelerations included.
        height: how far above a thing it is approached from [m].
        opening: of the gripper when it approaches [rad].
        aim: standard deviation of the error in aiming, drawn anew at every attempt [m].
        hesitation: chance of stopping for a moment, at every step.
        detour: chance of visiting a wrong thing first.
    """

    seed: int = 0
    speed: float = 1.0
    height: float = 0.055
    opening: float = 0.45
    aim: float = 0.0
    hesitation: float = 0.0
    detour: float = 0.0
    tempo: float = 1.0

    @classmethod
    def careful(cls, seed: int) -> Style:
        """A good demonstrator, with variation in speed and approach."""
        rng = np.random.default_rng([seed, 1])
        return cls(seed, rng.uniform(0.85, 1.2), rng.uniform(0.045, 0.065), rng.uniform(0.40, 0.52))

    @classmethod
    def clumsy(cls, seed: int) -> Style:
        """One who misses, hesitates and goes for the wrong thing now and then."""
        rng = np.random.default_rng([seed, 2])
        return replace(
            cls.careful(seed), speed=rng.uniform(0.6, 1.4), aim=rng.uniform(0.0, 0.012),
            hesitation=rng.uniform(0.0, 0.03), detour=0.3,
        )  # fmt: skip


class Expert:
    """Does the task of a world, one command at a time.

    Args:
        world: the world it looks at.
        kinematics: of the arm alone.
        task: what to do; its `phases` are asked once, for the scene as it is.
        style: how.
    """

    def __init__(self, world: World, kinematics: Kinematics, task: Task, style: Style) -> None:
        self.world, self.style = world, style
        self._motion = Motion(world, kinematics, style.speed, style.tempo)
        self._rng = np.random.default_rng(style.seed)
        prelude = self._detour(task)
        self._phases, self._first = [*prelude, *task.phases(self)], len(prelude)
        begun = [i for i, phase in enumerate(self._phases) if phase.ready()]
        self._index = begun[-1] if begun else 0
        self.age = self._pause = 0
        self._bias = self._draw_bias()
        self._last = world.targets

    @property
    def phase(self) -> Phase:
        """The phase under way."""
        return self._phases[self._index]

    @property
    def may_perturb(self) -> bool:
        """Whether noise may be added to the command of now without breaking a grasp or a fine movement."""
        return self.phase.perturb

    def act(self) -> NDArray[np.float32]:
        """The command for now, (6,) float32 in LeRobot's units, from the current state of the world."""
        self._motion.anchor()
        self._advance()
        if self._hesitates():
            self._motion.stop()
            joints = self._last
        else:
            joints = self._motion.towards(self._goal())
        self._last = joints
        return self.world.robot.to_lerobot(joints).astype(np.float32)

    def _advance(self) -> None:
        """Begin again where the phase is lost, go on where it is done."""
        self.age += 1
        if self.phase.lost():
            self._enter(self._first)
            self._bias = 0.5 * self._draw_bias()
        while self._index + 1 < len(self._phases) and self._done():
            self._enter(self._index + 1)

    def _enter(self, index: int) -> None:
        self._index, self.age = index, 0

    def _done(self) -> bool:
        return self.phase.done() if self.phase.done else self.reached(self._goal(), self.phase.tolerance)

    def _draw_bias(self) -> Array:
        return np.append(self._rng.normal(0.0, 1.0, 2) * self.style.aim, 0.0)

    def _hesitates(self) -> bool:
        if self._pause == 0 and self.style.hesitation and self._rng.random() < self.style.hesitation:
            self._pause = int(self._rng.integers(4, 16))
        self._pause = max(0, self._pause - 1)
        return self._pause > 0

    def _goal(self) -> Goal:
        goal = self.phase.goal()
        return replace(goal, position=goal.position + self._bias)

    def reached(self, goal: Goal, tolerance: float) -> bool:
        """Whether the gripper is at a goal's position and heading."""
        return self._motion.reached(goal, tolerance)

    def _detour(self, task: Task) -> list[Phase]:
        """A visit to a wrong thing, now and then."""
        wrong = [body for name, body in task.things.items() if name != task.target]
        if not wrong or self._rng.random() >= self.style.detour:
            return []
        body, low = wrong[int(self._rng.integers(len(wrong)))], self._rng.uniform(-0.01, 0.03)

        def visited() -> bool:
            return self.age > 45 or self.reached(self.phase.goal(), 0.02)

        return [Phase("visit", lambda: self.above(body, low), visited)]

    def grasp(self, body: str, half: float = CUBE_HALF) -> Goal:
        """The gripper around a thing of half width `half` [m], open."""
        position = self.world.position(body)
        yaw = straight(self.world.yaw(body), position)
        closing = np.array([math.cos(yaw), math.sin(yaw), 0.0])
        return Goal(position - closing * (PAD_OFFSET - CLEARANCE - half), self.style.opening, yaw, 0.6)

    def above(self, body: str, height: float | None = None, half: float = CUBE_HALF) -> Goal:
        """The open gripper over a thing, `height` above its grasp [m]."""
        goal = self.grasp(body, half)
        lift = self.style.height if height is None else height
        return replace(goal, position=goal.position + lift * UP, speed=1.0)

    def straddle(self, point: Array, way: Array, opening: float, height: float = 0.0) -> Goal:
        """The open fingers before and behind a point (3,) [m] on its way (3,), `height` above it [m]."""
        yaw = along(way, point)
        centre = MID_GAP * np.array([math.cos(yaw), math.sin(yaw), 0.0])
        return Goal(point + centre + height * UP, opening, yaw)

    def stay(self, opening: float) -> Goal:
        """Where the gripper is, upright as it is."""
        pose = self.world.gripper
        return Goal(pose.position, opening, math.atan2(pose.rotation[1, 0], pose.rotation[0, 0]))

    def carry(
        self, body: str, point: Array, opening: float = CLOSED, yaw: float | None = None, speed: float = 0.9
    ) -> Goal:
        """The gripper where the held thing is at `point` (3,) [m]."""
        tip = self.world.gripper.position
        return Goal(tip + (point - self.world.position(body)), opening, yaw, speed)

    def slipped(self, body: str) -> bool:
        """Whether a thing that should be held is held no longer."""
        far = np.linalg.norm(self.world.gripper.position - self.world.position(body)) > 0.03
        return bool(far or (self.age > 3 and not self.world.holds(body)))

    def pick(self, body: str, half: float = CUBE_HALF, height: float = 0.075) -> list[Phase]:
        """Go above a thing, down, close, and lift it by `height` [m]."""
        world = self.world

        def lifted() -> Goal:
            held = self.carry(body, np.array([*world.position(body)[:2], height + half]))
            return replace(held, yaw=self.stay(CLOSED).yaw)

        return [
            Phase("above", lambda: self.above(body, half=half), tolerance=0.012),
            Phase(
                "descend", lambda: self.grasp(body, half), perturb=False,
                lost=lambda: self.age > 60 or not self.reached(self.above(body, 0.03), 0.06),
            ),
            Phase(
                "close", lambda: self.stay(CLOSED), lambda: self.age > 3 and world.holds(body), perturb=False,
                lost=lambda: self.age > 25,
            ),
            Phase("lift", lifted, lost=lambda: self.slipped(body), ready=lambda: world.holds(body), perturb=False),
        ]  # fmt: skip

    def put(self, body: str, point: Callable[[], Array], drop: float, hover: float = 0.045) -> list[Phase]:
        """Bring a held thing over a point (3,) [m], lower it to `drop` above that [m], let go, and back away."""

        def at(height: float) -> Goal:
            return self.carry(body, point() + height * UP)

        def away() -> Goal:
            return replace(self.stay(RELEASED), position=point() + (hover + 0.03) * UP)

        return [
            Phase("over", lambda: at(hover), lost=lambda: self.slipped(body), tolerance=0.010),
            Phase("lower", lambda: at(drop), lost=lambda: self.slipped(body), perturb=False),
            Phase(
                "release", lambda: self.stay(RELEASED), lambda: self.age > 4 and not self.world.touches(body),
                lost=lambda: self.age > 40, perturb=False,
            ),
            Phase("leave", away, lost=lambda: self.age > 45, perturb=False),
        ]  # fmt: skip
