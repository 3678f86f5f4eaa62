"""Drivers on an SO-101 that is not there: the servo protocol on a pseudo-terminal, MuJoCo behind it.

Parts (`--only NAMES`, all by default):

- rw: LeRobot's own follower and leader at 30 Hz;
- damaged: our driver while 1% of all bytes are dropped, flipped or doubled;
- faults: how long until a fault has a name, and whether the arm is held then;
- exit, kill: what is left of torque and motion when a driver ends, or is killed;
- fuzz: whether anything gets a servo a goal outside the limits;
- episodes: the shipped policy on the twin and in simulation, on the same scenes;
- correct: a correction session with the leader arm as the human's device, recorded;
- sysid: delay and gains found from a recording.
"""

from __future__ import annotations

import importlib
from typing import Any

SECONDS, QUICK_SECONDS = 600.0, 20.0
PARTS = ("rw", "damaged", "faults", "exit", "kill", "fuzz", "episodes", "correct", "sysid")


def run(quick: bool = False, seconds: float = 0.0, only: str = "") -> dict[str, Any]:
    """Measure these parts.

    Args:
        quick: rougher, in minutes.
        seconds: of rw and of damaged (600).
        only: names of parts with commas between; empty for all.

    Returns:
        `metrics`: those of every part, as its module describes them.

    Raises:
        ValueError: there is no such part.
    """
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        raise ValueError(f"unknown part '{unknown[0]}' of benchmark twin; there are: {', '.join(PARTS)}")
    metrics: dict[str, float] = {}
    for name in wanted:
        part = importlib.import_module(f"vla_rl.bench.on_twin.{name}")
        metrics |= part.run(seconds or (QUICK_SECONDS if quick else SECONDS), quick)
    return {"metrics": metrics}
