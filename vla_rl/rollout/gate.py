"""Gate: a robot's actions in LeRobot's units through the same safety filter that guards a real arm."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.execute.limits import Limits
from vla_rl.execute.safety import SafetyFilter
from vla_rl.types import RobotSpec


class Gate:
    """Keeps the actions of one episode within the robot's limits.

    Args:
        robot: whose limits and units.
    """

    def __init__(self, robot: RobotSpec) -> None:
        self._robot = robot
        self._filter = SafetyFilter(Limits.from_spec(robot))

    def begin(self, state: NDArray[np.float32]) -> None:
        """Start at rest from measured joints (J,) in LeRobot's units."""
        self._filter.reset(self._robot.from_lerobot(state.astype(np.float64)))

    def pass_on(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (J,) in LeRobot's units as the limits let it through: itself, bit for bit, where they do."""
        filtered = self._filter.step(self._robot.from_lerobot(action.astype(np.float64)))
        if not filtered.changed.any():
            return action
        return self._robot.to_lerobot(filtered.command).astype(np.float32)

    def save(self) -> dict[str, Any]:
        """What the filter remembers of this episode; the limits are not part of it."""
        return copy.deepcopy({name: value for name, value in vars(self._filter).items() if name != "limits"})

    def load(self, memory: dict[str, Any]) -> None:
        """Go back to what `save` gave, here or in another robot of the same limits."""
        vars(self._filter).update(copy.deepcopy(memory))
