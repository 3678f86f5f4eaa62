"""Liveness: whether an arm that is driven over topics still does what it is told. It needs no ROS.

Whoever publishes a trajectory gets no answer. A controller that was deactivated, that aborted because of its tolerances
or that hangs is known by what the arm does not do, by silence, and by who still listens.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from vla_rl.types import Array, RobotSpec

_FASTER, _SLACK_RAD = 4.0, 0.1  # beyond these a joint did not move, its reading jumped: a turn of wrap, a lost encoder
SHUT_OUT_RAD = 0.05  # a folded arm may rest so far outside: a calibration is no better


class Liveness:
    """Compares what was asked of an arm with where it is.

    Args:
        spec: the robot.
        tracking_rad: an arm joint may be so far from every target of the last `tracking_s` [rad]; grippers may be
            anywhere, for they close on things.
        tracking_s: [s].

    Attributes:
        error_rad: how far the arm is from all that was asked of it [rad].
        lost: a reading jumped: where the arm is, is not known.
    """

    def __init__(self, spec: RobotSpec, tracking_rad: float, tracking_s: float) -> None:
        self._names, self._allowed, self._lately_ns = spec.names, tracking_rad, round(tracking_s * 1e9)
        self._arm = np.array([not joint.gripper for joint in spec.joints])
        self._fastest = np.array([joint.velocity for joint in spec.joints]) * _FASTER
        self._asked: deque[tuple[int, Array]] = deque()
        self._seen: tuple[int, Array] | None = None
        self.error_rad, self.lost = 0.0, False

    def ask(self, targets: Array, now_ns: int) -> None:
        """Targets (J,) [rad] were sent, monotonic clock."""
        self._asked.append((now_ns, targets))
        self._forget(now_ns)

    def see(self, joints: Array, stamp_ns: int, now_ns: int) -> str:
        """Joints (J,) [rad] as they were at a stamp and heard now; what is wrong with them, "" where nothing is."""
        before, self._seen = self._seen, (stamp_ns, joints)
        jump = _jump(before, self._seen, self._fastest) if before is not None else None
        if jump is not None:
            (joint, moved), self.lost = jump, True
            return f"joint '{self._names[joint]}' jumped by {moved:.2f} rad between two joint states: check its encoder"
        self._forget(now_ns)
        if not self._asked:
            return ""
        asked = np.stack([targets for _, targets in self._asked])
        away = np.where(self._arm, np.maximum(asked.min(0) - joints, joints - asked.max(0)), 0.0)
        worst = int(np.argmax(away))
        self.error_rad = max(float(away[worst]), 0.0)
        if self.error_rad <= self._allowed:
            return ""
        return (
            f"joint '{self._names[worst]}' is {self.error_rad:.2f} rad away from all that was asked of it in the last "
            f"{self._lately_ns * 1e-9:.2f} s: its controller is inactive, has aborted, or something is in the way"
        )

    def _forget(self, now_ns: int) -> None:
        """Keep the targets of late, and the one that was in force when they began."""
        while len(self._asked) > 1 and self._asked[1][0] <= now_ns - self._lately_ns:
            self._asked.popleft()


def _jump(before: tuple[int, Array], after: tuple[int, Array], fastest: Array) -> tuple[int, float] | None:
    """Which joint moved further than it can, and how far [rad]; None where none did."""
    seconds = max((after[0] - before[0]) * 1e-9, 0.0)
    moved = np.abs(after[1] - before[1])
    excess = moved - fastest * seconds - _SLACK_RAD
    joint = int(np.argmax(excess))
    return (joint, float(moved[joint])) if excess[joint] > 0 else None


def shut_out(spec: RobotSpec, joints: Array) -> str:
    """How far joints (J,) [rad] are outside the limits, one line; "" where they are within them."""
    below, above = spec.low - joints, joints - spec.high
    found = [
        f"{name} is {excess:.3f} rad ({np.degrees(excess):.1f} degrees) {side} its limit"
        for name, low, high in zip(spec.names, below, above, strict=True)
        for excess, side in ((low, "below"), (high, "above"))
        if excess > SHUT_OUT_RAD
    ]
    return f"the limits of '{spec.name}' exclude where the arm is: {', '.join(found)}" if found else ""
