"""What the parts share: a twin in a folder that goes, our driver on it, a motion that never repeats a goal, a clock."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.build_arm import ArmConfig, make_arm
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.robot import Robot, arm_spec
from vla_rl.types import Array

SPEC = arm_spec("so101")
IN_THE_AIR = [0.0, -0.6, 0.3, 0.8, 0.5, 0.8]  # [rad]
GLANCE_S = 0.005
SWING, HERTZ = 0.25, 0.31  # of the motion: amplitude [rad] and frequency of the first joint


@contextmanager
def a_twin(**options: Any) -> Iterator[TwinProcess]:
    """A twin with these flags of `vla-rl twin`, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="twin") as folder, TwinProcess(Path(folder), **options) as twin:
        yield twin


@contextmanager
def driven(twin: TwinProcess, **settings: Any) -> Iterator[Robot]:
    """Our driver of LeRobot's arms on a twin, found in the air; `settings` as `ArmConfig` has them."""
    config = ArmConfig(port=str(twin.port), id="follower", calibration=str(twin.calibration), **settings)
    twin.ask("carry", joints=IN_THE_AIR, wait=True)  # without torque it lies on the table, and cannot move
    arm = make_arm(config, say=lambda line: None)
    twin.ask("carry", joints=None)
    try:
        yield arm
    finally:
        arm.close()


def swing(start: Array, seconds: float) -> Array:
    """Where the joints are to be after so many seconds: every joint swings, each in a rhythm of its own."""
    rhythm = HERTZ * (1 + 0.13 * np.arange(len(start)))
    goal = start + SWING * np.sin(2 * math.pi * rhythm * seconds)
    return np.clip(goal, SPEC.low + 0.05, SPEC.high - 0.05)


class Clock:
    """Periods on a fixed schedule.

    Args:
        rate: of them [Hz].

    Attributes:
        missed: periods whose work was not done when the next began.
    """

    def __init__(self, rate: float = SPEC.rate) -> None:
        self._period, self._due, self.missed = 1.0 / rate, time.monotonic(), 0

    def tick(self, enough: Callable[[], bool] = lambda: False) -> None:
        """The period's work is done: wait for the next one, or until there is enough."""
        self._due += self._period
        late = time.monotonic() - self._due
        if late > 0:
            self.missed += math.ceil(late / self._period)
            self._due += math.floor(late / self._period) * self._period
        while not enough() and (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, GLANCE_S))
