"""SIGKILL of the driver while the arm moves: how far the arm goes on. No chunk is in the servos: one step at most."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, a_twin
from vla_rl.bench.on_twin.driving import READY
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.hardware.twin.table import TICK

TIMES, QUICK_TIMES = 20, 3
SETTLE_S, REST = 1.0, 0.02  # a servo comes to rest so near its goal [rad]


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Kill a driver at random moments.

    Returns:
        kills; kill_step_rad: the largest step between two goals before; kill_beyond_rad: how far the arm ended beyond
        the last goal that it heard; kill_travel_steps: the same in steps, worst; torque_lost: kills that cut torque.
    """
    rng = random.Random(0)
    steps, beyond, lost = [], [], 0
    for _ in range(QUICK_TIMES if quick else TIMES):
        with a_twin() as twin:
            step, further, cut = _kill(twin, rng.uniform(0.5, 2.5))
        steps.append(step)
        beyond.append(further)
        lost += cut
    travel = max(b / s for b, s in zip(beyond, steps, strict=True))
    return {
        "kills": len(steps),
        "kill_step_rad": max(steps),
        "kill_beyond_rad": max(beyond),
        "kill_travel_steps": travel,
        "torque_lost": lost,
    }


def _kill(twin: TwinProcess, after_s: float) -> tuple[float, float, bool]:
    """One kill: the largest step of a goal before [rad], how far beyond its last goal the arm came, torque lost."""
    command = [
        sys.executable,
        "-m",
        "vla_rl.bench.on_twin.driving",
        str(twin.port),
        str(twin.calibration),
        "hold",
        "wait",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    while READY not in process.stdout.readline():
        if process.poll() is not None:
            raise RuntimeError(f"the driver did not start: {' '.join(command)}")
    time.sleep(after_s)
    process.kill()
    process.wait()
    time.sleep(SETTLE_S)
    servos = twin.status()["follower"]["servos"].values()
    events = twin.ask("events", kind="goal")["events"]
    goals = [[e["value"] for e in events if e["servo"] == i + 1] for i in range(len(SPEC.joints))]
    step = max(float(np.abs(np.diff(own[1:])).max()) for own in goals) * TICK
    beyond = max(abs(s["present"] - s["goal"]) for s in servos) * TICK
    return step, max(beyond - REST, 0.0), not all(s["torque"] for s in servos)
