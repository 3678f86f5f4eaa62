"""How a gripper moves from where it is to where it should be: bounded velocity and acceleration, on a tether.

The plan, a noise-free pose, runs ahead of the measured gripper by a tether's length at most: noise on the commands does
not add up, and a push is answered from where it led.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla_rl.kinematics import Kinematics, Pose
from vla_rl.sim.scene import PAN_AXIS
from vla_rl.sim.world import World
from vla_rl.types import Array

MAX_SPEED, MAX_ACCELERATION, BRAKING = 0.14, 0.6, 0.28
MAX_TURN, TURN_ACCELERATION = 2.0, 8.0
GRIPPER_SPEED = 1.8
TETHER, TWIST, SQUEEZE = 0.02, 0.25, 0.3
WRIST_BACK = 2.2
ALIGNED = 0.985


@dataclass(frozen=True, eq=False)
class Goal:
    """Where the gripper should be.

    Attributes:
        position: of the fingertip frame, (3,) [m], base frame.
        yaw: direction from the moving finger to the fixed one, about the vertical [rad]; None to leave the choice
            to `straight`.
        opening: of the gripper joint [rad].
        speed: multiple of the usual speed.
    """

    position: Array
    opening: float
    yaw: float | None = None
    speed: float = 1.0


def straight(yaw: float | None, position: Array) -> float:
    """The heading nearest to the natural one at a place, among those that close on a square thing alike [rad].

    The natural one has the wrist camera on the arm's side and the fingers left and right of the thing.
    """
    natural = math.atan2(position[1] - PAN_AXIS[1], position[0] - PAN_AXIS[0]) - math.pi / 2
    if yaw is None:
        return natural
    return natural + (yaw - natural + math.pi / 4) % (math.pi / 2) - math.pi / 4


def along(way: Array, position: Array) -> float:
    """The heading with the fingers one before and one behind a thing on its way, within the wrist's range [rad]."""
    natural = straight(None, position)
    return natural + (math.atan2(way[1], way[0]) - natural + WRIST_BACK) % math.pi - WRIST_BACK


def _rotation(goal: Goal) -> Array:
    """The fingertip frame's rotation at a goal."""
    yaw = straight(None, goal.position) if goal.yaw is None else goal.yaw
    x = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    z = np.array([0.0, 0.0, -1.0])
    return np.stack([x, np.cross(z, x), z], axis=1)


class Motion:
    """Moves the gripper of a world, one command at a time.

    Args:
        world: the world it looks at.
        kinematics: of the arm alone.
        pace: multiple of the usual speed, at the usual accelerations.
        tempo: how much faster time runs for the plan: speeds grow with it, accelerations with its square.
    """

    def __init__(self, world: World, kinematics: Kinematics, pace: float = 1.0, tempo: float = 1.0) -> None:
        self._world, self._kinematics, self._pace, self._dt = world, kinematics, pace, tempo * world.dt
        self._plan, self._last = world.gripper, world.targets
        self._reach = np.array([joint.velocity for joint in world.robot.joints]) * world.dt
        self.stop()

    def stop(self) -> None:
        """Start from rest at the next command."""
        self._velocity, self._turn = np.zeros(3), 0.0

    def reached(self, goal: Goal, tolerance: float) -> bool:
        """Whether the plan is at a goal's position, within `tolerance` [m], and heading."""
        aligned = (_rotation(goal)[:, 0] @ self._plan.rotation[:, 0]) > ALIGNED
        return bool(aligned and np.linalg.norm(self._plan.position - goal.position) < tolerance)

    def anchor(self) -> None:
        """Tie the plan to the measured gripper: noise on the commands doesn't add up, a push is answered.

        So is the opening that was asked for last, to what is executed: commands may arrive some periods late, or not.
        """
        measured, plan = self._world.gripper, self._plan
        gap = plan.position - measured.position
        slack = min(1.0, TETHER / max(float(np.linalg.norm(gap)), 1e-9))
        rotation = _turned(measured.rotation, plan.rotation, TWIST)
        self._plan = Pose(measured.position + slack * gap, rotation)
        executed = self._world.targets[-1]
        self._last[-1] = np.clip(self._last[-1], executed - SQUEEZE, executed + SQUEEZE)

    def towards(self, goal: Goal) -> Array:
        """Joint targets (J,) [rad] of the next step towards a goal."""
        dt, pace = self._dt, self._pace * goal.speed
        gap = goal.position - self._plan.position
        distance = float(np.linalg.norm(gap))
        wish = gap / max(distance, 1e-9) * min(MAX_SPEED * pace, math.sqrt(2 * BRAKING * distance), 10.0 * distance)
        change = wish - self._velocity
        self._velocity += change * min(1.0, MAX_ACCELERATION * dt / max(float(np.linalg.norm(change)), 1e-9))
        target = _rotation(goal)
        angle = _angle(self._plan.rotation, target)
        self._turn = min(self._turn + TURN_ACCELERATION * dt, MAX_TURN * self._pace, 8.0 * angle)
        rotation = _turned(self._plan.rotation, target, self._turn * dt)
        self._plan = Pose(self._plan.position + self._velocity * dt, rotation)
        last = self._last
        joints = self._kinematics.inverse(self._plan, self._world.joints)
        if (np.abs(joints - last)[:-1] > self._reach[:-1]).any():  # stretched out, the inverse may flip the elbow: stay
            joints = self._world.targets
            self.stop()
        joints[-1] = last[-1] + np.clip(goal.opening - last[-1], -GRIPPER_SPEED * dt, GRIPPER_SPEED * dt)
        self._last = joints
        return joints.copy()


def _angle(start: Array, end: Array) -> float:
    """Angle between two rotation matrices [rad]."""
    return math.acos(float(np.clip((np.trace(end @ start.T) - 1.0) / 2.0, -1.0, 1.0)))


def _turned(start: Array, end: Array, most: float) -> Array:
    """A rotation matrix on the way from `start` to `end`, at most `most` [rad] along (Rodrigues' formula)."""
    angle = _angle(start, end)
    if angle <= most or angle < 1e-6:
        return end
    difference = end @ start.T
    cross = (difference - difference.T) / (2.0 * math.sin(angle))
    return (np.eye(3) + math.sin(most) * cross + (1.0 - math.cos(most)) * cross @ cross) @ start
