"""How long until a fault of the arm has a name, and that the arm is held then and does not go on by itself.

Every fault begins while the joint concerned moves: of an encoder that stops at a reversal nobody can know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vla_rl.bench.on_twin.bench_arm import HERTZ, Clock, a_twin, driven, swing
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.robot import Fault, Physical, Robot
from vla_rl.types import Array

FAULTS: dict[str, dict[str, Any]] = {
    "port_pulled": {"kind": "gone"},
    "servo_silent": {"kind": "silent", "servo": 4},
    "servo_overheated": {"kind": "overheated", "servo": 2},
    "servo_overloaded": {"kind": "overloaded", "servo": 3},
    "servo_undervoltage": {"kind": "undervoltage", "servo": 1},
    "servo_lost_power": {"kind": "power", "servo": 5},
    "encoder_stuck": {"kind": "stuck", "servo": 1},
    "turn_of_wrap": {"kind": "turn", "servo": 2},
}
MOVING_S, PATIENCE_S, AFTER_S = 0.5 / HERTZ, 3.0, 1.0
ROUNDS, QUICK_ROUNDS = 5, 1


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Each fault several times, at another moment of the motion.

    Returns:
        fault_named_max_ms; `<fault>_named_ms`, worst each; faults_unnamed; goals_after_fault: that servos got once the
        fault had its name; resumed_by_itself: arms that took commands again once the cause was gone, untold.
    """
    named: dict[str, list[float]] = {name: [] for name in FAULTS}
    unnamed = goals = resumed = 0
    for turn in range(QUICK_ROUNDS if quick else ROUNDS):
        for name, fault in FAULTS.items():
            with a_twin(task="lift") as twin:
                took, after, again = _try(twin, fault, MOVING_S + 0.08 * turn)
            if took is None:
                unnamed += 1
            else:
                named[name].append(took * 1000)
            goals, resumed = goals + after, resumed + again
    worst = {f"{name}_named_ms": max(took, default=float("nan")) for name, took in named.items()}
    return {
        "fault_named_max_ms": max(worst.values()),
        **worst,
        "faults_unnamed": unnamed,
        "goals_after_fault": goals,
        "resumed_by_itself": resumed,
    }


def _try(twin: TwinProcess, fault: dict[str, Any], moving_s: float) -> tuple[float | None, int, int]:
    """One fault of an arm in motion: seconds until it had a name, goals after that, whether it went on untold."""
    with driven(twin) as arm:
        assert isinstance(arm, Physical)
        start, clock, began = arm.sense().joints, Clock(), time.monotonic()
        _drive(arm, start, clock, began, lambda: time.monotonic() - began > moving_s)
        hit = time.monotonic()
        twin.ask("faults", faults=[fault])
        _drive(arm, start, clock, began, lambda: bool(arm.fault) or time.monotonic() - hit > PATIENCE_S)
        took = time.monotonic() - hit if arm.fault else None
        time.sleep(0.1)  # the last goal is where the arm was seen last
        before = twin.status()["follower"]["counts"]["goals"]
        twin.ask("faults", faults=[])
        mended = time.monotonic()
        _drive(arm, start, clock, began, lambda: time.monotonic() - mended > AFTER_S)
        goals = twin.status()["follower"]["counts"]["goals"] - before
        return took, int(goals), int(took is not None and not arm.fault)


def _drive(arm: Robot, start: Array, clock: Clock, began: float, done: Callable[[], bool]) -> None:
    """Swing at 30 Hz until something is so; looked at between the periods too."""
    while not done():
        arm.sense()
        with suppress(Fault):
            arm.command(swing(start, time.monotonic() - began))
        clock.tick(done)
