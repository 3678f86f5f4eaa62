"""`vla-rl sysid` on a twin whose delay and gains are known: drive it slowly and widely, fit, compare."""

from __future__ import annotations

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, a_twin, driven
from vla_rl.build_arm import make_servo_replay
from vla_rl.rollout.excitation import excite
from vla_rl.rollout.sysid import Fitter

DELAY_MS, GAIN = 60.0, 0.8
LEAST_S, QUICK_S = 60.0, 30.0


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Drive, fit, compare.

    Returns:
        sysid_delay_ms, sysid_gain: what was found; sysid_delay_error_ms, sysid_gain_error: how far off, the gain as a
        part of it;
        sysid_rms_model_mrad, sysid_rms_fit_mrad: difference from the twin before and after, worst arm joint;
        sysid_seconds, sysid_unsent: of driving, and commands that did not get through.
    """
    simulate = make_servo_replay(SPEC.name)
    wanted = QUICK_S if quick else max(seconds, LEAST_S)
    with a_twin(task="lift", delay_ms=DELAY_MS, gain_scale=GAIN) as twin, driven(twin) as arm:
        motion, unsent = excite(arm, simulate, wanted)
    fit = Fitter([motion], simulate).fit()
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
