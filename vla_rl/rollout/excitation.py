"""Excitation: a motion that tells an arm's delay and gains: slow, wide, in the air, and seen at many moments."""

from __future__ import annotations

import time

import numpy as np

from vla_rl.execute.loop import PeriodicLoop
from vla_rl.robot import Fault, Robot
from vla_rl.rollout.sysid_model import Motion, Simulate
from vla_rl.types import Array

LEAD_S = 4.0  # from where the arm is to the swing
HERTZ = 0.05 + 0.011 * np.arange(16)  # a rhythm a joint
GLANCES, PAUSES_S = 2, (0.003, 0.009)  # in a period, after the command: a ramp shows where it is seen at many moments
MARGIN = 0.05  # to the joints' limits [rad]


def excite(arm: Robot, simulate: Simulate, seconds: float) -> tuple[Motion, int]:
    """Swing every joint in a rhythm of its own.

    Args:
        arm: a real one, or a twin of it.
        simulate: its model, which says where the air is.
        seconds: of swinging [s]; what leads to it is recorded as well.

    Returns:
        What was asked and seen, and how many commands did not get through.

    Raises:
        Fault: the arm has one.
    """
    start, rng, unsent = arm.sense().joints, np.random.default_rng(0), 0
    asked: list[tuple[int, Array]] = []
    seen: dict[int, Array] = {}
    begin = time.monotonic_ns()
    for now in PeriodicLoop(1.0 / arm.spec.rate).ticks():
        passed = (now - begin) * 1e-9
        if passed > seconds + LEAD_S:
            break
        _look(arm, seen)
        try:
            sent = arm.command(_path(start, simulate, passed))
            asked.append((time.time_ns(), sent))
        except Fault:
            if getattr(arm, "fault", ""):
                raise
            unsent += 1
        for pause_s in rng.uniform(*PAUSES_S, GLANCES):
            time.sleep(pause_s)
            _look(arm, seen)
    stamps = np.array([stamp for stamp, _ in asked], np.int64)
    targets, joints = np.stack([target for _, target in asked]), np.stack(list(seen.values()))
    return Motion(stamps, targets, np.array(list(seen), np.int64), joints), unsent


def _look(arm: Robot, seen: dict[int, Array]) -> None:
    sensed = arm.sense()
    seen[sensed.stamp_ns] = sensed.joints


def _path(start: Array, simulate: Simulate, passed: float) -> Array:
    """Where the joints are to be, (J,) [rad]; the first seconds lead there, gently at both ends."""
    share, spec = 0.5 - 0.5 * np.cos(np.pi * min(passed / LEAD_S, 1.0)), simulate.spec
    wide = simulate.middle + simulate.reach * np.sin(2 * np.pi * HERTZ[: len(start)] * passed)
    return np.clip((1 - share) * start + share * wide, spec.low + MARGIN, spec.high - MARGIN)
