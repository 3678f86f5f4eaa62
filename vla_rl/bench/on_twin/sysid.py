"""`vla-rl sysid` on a twin whose delay and gains are known: drive it slowly and widely, fit, compare."""

from __future__ import annotations

import time

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, Clock, a_twin, driven
from vla_rl.build_arm import make_servo_replay
from vla_rl.robot import Fault, Robot
from vla_rl.rollout.sysid import Fitter
from vla_rl.rollout.sysid_model import Motion
from vla_rl.types import Array

DELAY_MS, GAIN = 60.0, 0.8
LEAST_S, QUICK_S, LEAD_S = 60.0, 30.0, 4.0
MIDDLE = np.array([0.0, -0.5, -0.3, -0.1, 0.0, 0.5])  # in the air, where gravity pulls at most and least [rad]
SWING = np.array([0.8, 0.5, 0.6, 0.6, 0.8, 0.3])  # [rad]
HERTZ = 0.05 + 0.011 * np.arange(6)
GLANCES, PAUSES_S = 2, (0.003, 0.009)  # in a period, after the command: a ramp shows where it is seen at many moments


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Drive, fit, compare.

    Returns:
        sysid_delay_ms, sysid_gain: what was found; sysid_delay_error_ms, sysid_gain_error: how far off, the gain as a
        part of it;
        sysid_rms_model_mrad, sysid_rms_fit_mrad: difference from the twin before and after, worst arm joint;
        sysid_seconds, sysid_unsent: of driving, and commands that did not get through.
    """
    wanted = QUICK_S if quick else max(seconds, LEAST_S)
    with a_twin(task="lift", delay_ms=DELAY_MS, gain_scale=GAIN) as twin, driven(twin) as arm:
        motion, unsent = _drive(arm, wanted)
    fit = Fitter([motion], make_servo_replay(SPEC.name)).fit()
    arm_joints = np.array([not joint.gripper for joint in SPEC.joints])
    delay_ms, gain = 1e3 * fit.servo.delay_s, fit.servo.gain
    return {
        "sysid_delay_ms": delay_ms,
        "sysid_gain": gain,
        "sysid_delay_error_ms": abs(delay_ms - DELAY_MS),
        "sysid_gain_error": abs(gain / GAIN - 1),
        "sysid_rms_model_mrad": 1e3 * float(fit.rms_before[arm_joints].max()),
        "sysid_rms_fit_mrad": 1e3 * float(fit.rms_after[arm_joints].max()),
        "sysid_seconds": fit.seconds,
        "sysid_unsent": unsent,
    }


def _drive(arm: Robot, seconds: float) -> tuple[Motion, int]:
    """Swing every joint in a rhythm of its own; what was asked and seen, and how often a command got lost."""
    start, clock, rng, unsent = arm.sense().joints, Clock(), np.random.default_rng(0), 0
    asked: list[tuple[int, Array]] = []
    seen: dict[int, Array] = {}
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds + LEAD_S:
        sensed = arm.sense()
        seen[sensed.stamp_ns] = sensed.joints
        try:
            sent = arm.command(_path(start, passed))
            asked.append((time.time_ns(), sent))
        except Fault:
            if getattr(arm, "fault", ""):
                raise
            unsent += 1
        for pause_s in rng.uniform(*PAUSES_S, GLANCES):
            time.sleep(pause_s)
            sensed = arm.sense()
            seen[sensed.stamp_ns] = sensed.joints
        clock.tick()
    targets, joints = np.stack([target for _, target in asked]), np.stack(list(seen.values()))
    stamps = np.array([stamp for stamp, _ in asked], np.int64)
    return Motion(stamps, targets, np.array(list(seen), np.int64), joints), unsent


def _path(start: Array, passed: float) -> Array:
    """Where the joints are to be, (J,) [rad]; the first seconds lead there, gently at both ends."""
    share = 0.5 - 0.5 * np.cos(np.pi * min(passed / LEAD_S, 1.0))
    wide = MIDDLE + SWING * np.sin(2 * np.pi * HERTZ * passed)
    return np.clip((1 - share) * start + share * wide, SPEC.low + 0.05, SPEC.high - 0.05)
