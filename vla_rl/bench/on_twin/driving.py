"""A program that drives an arm and ends in one of the ways in which programs end: what `exit` and `kill` start.

  python -m vla_rl.bench.on_twin.driving PORT CALIBRATION AT_EXIT HOW

HOW: end, exception (after a second), or wait (for a signal).
"""

from __future__ import annotations

import sys
import time

from vla_rl.bench.on_twin.bench_arm import Clock, swing
from vla_rl.build_arm import ArmConfig, make_arm
from vla_rl.robot import Robot

MOVING_S, FOREVER_S = 1.0, 600.0
READY = "driving"


def drive(arm: Robot, seconds: float) -> None:
    """Swing at 30 Hz."""
    start, clock, began = arm.sense().joints, Clock(), time.monotonic()
    while time.monotonic() - began < seconds:
        arm.sense()
        arm.command(swing(start, time.monotonic() - began))
        clock.tick()


def main() -> None:
    """The command line."""
    port, calibration, at_exit, how = sys.argv[1:]
    config = ArmConfig(port=port, id="follower", calibration=calibration, at_exit=at_exit, silence_s=1.0)
    arm = make_arm(config)
    print(READY, flush=True)
    drive(arm, FOREVER_S if how == "wait" else MOVING_S)
    if how == "exception":
        raise ArithmeticError("the policy divided by zero")


if __name__ == "__main__":
    main()
