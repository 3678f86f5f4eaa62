"""Arms of other shapes and limits than the SO-101's, and an oracle for limits that knows nothing of the filter."""

from dataclasses import replace

import numpy as np

from vla_rl.robot import arm_spec
from vla_rl.types import FrameSpec, JointSpec, RobotSpec


def serial_arm(name, joints=7, rate=30.0, velocity=0.5, acceleration=1.0, jerk=5.0, box=None):
    """A chain of 15 cm links that bends about y and turns about z in turn, with a gripper at its end."""
    specs = [
        JointSpec(
            f"joint_{i}", -2.5, 2.5, velocity, acceleration, jerk, f"joint_{i}.pos", "degrees", link=f"link_{i}",
            frame=FrameSpec(f"link_{i - 1}", (0.0, 0.0, 0.15)), axis=(0.0, float(i % 2), 1.0 - i % 2),
        )
        for i in range(joints)
    ]  # fmt: skip
    hand = JointSpec(
        "hand", 0.0, 1.0, velocity, acceleration, jerk, "hand.pos", "percent", gripper=True, link="finger",
        frame=FrameSpec(f"link_{joints - 1}", (0.0, 0.02, 0.05)),
    )  # fmt: skip
    box = box or ((-0.6, -0.6, 0.1), (0.6, 0.6, 1.1))
    tip = FrameSpec(f"link_{joints - 1}", (0.0, 0.0, 0.1))
    return RobotSpec(name, (*specs, hand), (), rate, box, tip)


SO101 = arm_spec("so101")
ARMS = {
    "so101": SO101,
    "so101 at 100 Hz": replace(SO101, rate=100.0),
    "slow": serial_arm("slow"),
    "slow at 100 Hz": serial_arm("slow at 100 Hz", rate=100.0),
    "stiff": serial_arm("stiff", velocity=2.0, acceleration=20.0, jerk=1e5),
    "soft": serial_arm("soft", joints=3, velocity=3.0, acceleration=8.0, jerk=15.0),
}
INSIDE = 1e-6  # relative: rounding in third differences


def states_within(limits, count, rng):
    """Joint vectors (count, J) within position limits and workspace."""
    found = np.empty((0, len(limits.low)))
    while len(found) < count:
        drawn = rng.uniform(limits.low, limits.high, (4 * count, len(limits.low)))
        found = np.concatenate([found, drawn[(limits.excess(drawn) == 0).all(-1)]])
    return found[:count]


def violations(limits, commands):
    """Names of the limits that a sequence of commands (T, ..., J), begun at rest at its first, does not keep."""
    path = np.concatenate([commands[:1], commands[:1], commands[:1], commands])
    broken = [] if np.isfinite(path).all() else ["finite"]
    broken += [] if ((path >= limits.low) & (path <= limits.high)).all() else ["position"]
    for name in ("velocity", "acceleration", "jerk"):
        path = np.diff(path, axis=0) / limits.dt
        broken += [] if (np.abs(path) <= getattr(limits, name) * (1 + INSIDE)).all() else [name]
    return broken + ([] if (limits.excess(commands) == 0).all() else ["workspace"])
