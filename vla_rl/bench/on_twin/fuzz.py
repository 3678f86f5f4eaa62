"""Commands that are wrong in every way, through robot_node to the servos: none may get a goal outside its limits."""

from __future__ import annotations

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, a_twin
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.hardware.twin.table import TICK

COUNT, QUICK_COUNT, TOLERANCE = 100_000, 2_000, 2  # ticks


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Send wrong commands, one after the other.

    Returns:
        fuzzed_commands; fuzz_goals: that reached servos; goals_outside_limits: of those; fuzz_ended: nodes that died.
    """
    from vla_rl.ros.measure.robot_alone import RobotAlone

    count = QUICK_COUNT if quick else COUNT
    with a_twin() as twin:
        parameters = {"robot": "lerobot", "port": twin.port, "id": "follower", "calibration": twin.calibration}
        with RobotAlone({**parameters, "silence_s": 2.0}) as robot:
            robot.fuzz(count)
            ended = not robot.alive
            robot.end()
        counts, outside = twin.status()["follower"]["counts"], _outside(twin)
    return {
        "fuzzed_commands": count,
        "fuzz_goals": counts["goals"],
        "goals_outside_limits": max(counts["goals_outside"], outside),
        "fuzz_ended": float(ended),
    }


def _outside(twin: TwinProcess) -> int:
    """Goals that the twin remembers, outside the arm's own limits: a servo that turns without a stop has none."""
    calibration = list(twin.ask("calibration")["calibration"].values())
    outside = 0
    for joint, own in zip(SPEC.joints, calibration, strict=True):
        middle = (own["range_min"] + own["range_max"]) / 2
        half = (joint.high - joint.low) / 2 / TICK + TOLERANCE
        goals = np.array([e["value"] for e in twin.ask("events", kind="goal")["events"] if e["servo"] == own["id"]])
        outside += int((np.abs(goals - middle) > half).sum())
    return outside
