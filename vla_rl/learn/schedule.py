"""How far a run is and what the learning rate is there: counted in steps, in minutes, or whichever ends first."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """What a run may spend. Fraction done = the larger of steps / `steps` and seconds / `seconds`.

    A budget in steps makes a run repeatable bit for bit; one in seconds anneals in time whatever the machine's speed,
    and then the learning rate depends on the clock.

    Attributes:
        steps: optimiser steps, None for no such limit.
        seconds: training time [s], None for no such limit.
    """

    steps: int | None
    seconds: float | None

    def fraction(self, step: int, elapsed: float) -> float:
        """Share of the budget that is spent, in [0, 1], after `step` steps and `elapsed` seconds."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_seconds = elapsed / self.seconds if self.seconds is not None else 0.0
        return min(1.0, max(by_steps, by_seconds))


def learning_rate(step: int, fraction: float, peak: float, warmup: int, floor: float = 0.01) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine over the budget down to `floor` times the peak.

    Loshchilov and Hutter, SGDR (arXiv:1608.03983), without restarts. The cosine runs over the whole budget and the
    warm-up multiplies it, so that a budget in minutes needs no count of steps.
    """
    ramp = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * fraction))
    return peak * ramp * (floor + (1.0 - floor) * cosine)
