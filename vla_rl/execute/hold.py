"""Hold: brake, see where the arm came to rest, and stay there."""

from __future__ import annotations

import numpy as np

from vla_rl.execute.measured import Measured
from vla_rl.execute.safety import SafetyFilter
from vla_rl.types import Array

PATIENCE = 15  # periods that the arm is given to come to rest after its commands have


class Hold:
    """One hold, from its beginning on: every command of it passes the filter.

    It brakes along the filter's verified plan. Once commands and arm are at rest it latches: the arm's joints go to the
    position measured then, within the limits, and stay; a gripper keeps its last command, because its measured position
    would let go of what it holds. Where nothing fresh is measured, the last command is kept.

    Attributes:
        latched: whether the place to stay is decided.
    """

    def __init__(self, motion: SafetyFilter) -> None:
        self._filter = motion
        self._place: Array | None = None
        self._waited = 0

    @property
    def latched(self) -> bool:
        """Whether the place to stay is decided."""
        return self._place is not None

    def command(self, measured: Measured, fresh: bool) -> Array:
        """The next command, (J,) [rad]."""
        if self._place is not None:
            return self._filter.step(self._place).command
        command = self._filter.brake()
        if self._filter.at_rest:
            self._waited += 1
            if not fresh or measured.still or self._waited > PATIENCE:
                self._place = self._latch(measured, fresh)
        return command

    def _latch(self, measured: Measured, fresh: bool) -> Array:
        limits, command = self._filter.limits, self._filter.command
        if not fresh or measured.joints is None:
            return command
        inside = np.clip(measured.joints, limits.low, limits.high)
        return np.where(limits.gripper, command, inside)
