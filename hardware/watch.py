"""Watch: what an arm's measurements say about the arm itself. Nothing here knows how they were measured."""

from __future__ import annotations

import numpy as np

from vla_rl.types import Array, RobotSpec

SILENCE_PERIODS = 3.0
GLITCHES = 2  # samples in a row that no arm can have made
MARGIN = 0.15  # of a jump, beyond what the velocity limit allows [rad]
TICK = 2 * np.pi / 4096
STILL = 2.5 * TICK  # an encoder that moves less shows nothing new
LEFT = 0.012  # a goal leaves its joint behind [rad]
AWAY, STUCK_S, STUCK_SAMPLES = 0.03, 0.1, 3  # and is too far ahead [rad], for too long [s], in so many samples
REST_S, REST_AWAY, REST_STUCK_S = 0.1, 0.08, 0.25  # the same of a joint that stood still: it is late, and it sticks


class Watch:
    """Judges samples of one arm as they come.

    - Silent: no sample for three periods.
    - Jump: a joint is where it cannot have moved to; one such sample is left out, two in a row are a fault.
    - Stuck: a joint's reading stays where it is, while its goal has since moved away from it; one that stood still
      before is given longer. Grippers are left out: a gripper that holds something does just that.

    Args:
        spec: the arm.
        silence_s: without a sample for so long it is silent [s]; 0 takes three periods.
    """

    def __init__(self, spec: RobotSpec, silence_s: float = 0.0) -> None:
        self._spec = spec
        self._silence_ns = round((silence_s or SILENCE_PERIODS / spec.rate) * 1e9)
        self._velocity = np.array([joint.velocity for joint in spec.joints])
        self._arm = np.array([not joint.gripper for joint in spec.joints])
        self.glitches = 0
        self.reset(0)

    def reset(self, now_ns: int) -> None:
        """Forget all samples, at a monotonic time [ns]."""
        self._heard_ns = self._taken_ns = now_ns
        self._odd = 0
        self._joints: Array | None = None
        self._goals: Array | None = None

    def goals(self, goals: Array, now_ns: int) -> None:
        """What the servos were to do at a monotonic time [ns], as far as they heard of it, (J,) [rad]."""
        if self._goals is None:
            self._goal_then, self._left_ns, self._samples = goals, np.zeros(goals.shape), np.zeros(goals.shape)
        self._goals = goals
        self._note_distance(now_ns)

    def take(self, joints: Array, now_ns: int) -> str:
        """Judge a sample, (J,) [rad], of a monotonic time [ns]; "" if it is good, else why it is not."""
        self._heard_ns = now_ns
        if self._joints is None:
            self._joints, self._reading, self._taken_ns = joints, joints, now_ns
            self._moved_ns = np.full(joints.shape, now_ns - round(2e9 * REST_S))
            return ""
        reach = self._velocity * (now_ns - self._taken_ns) * 1e-9 * 1.5 + MARGIN
        jumped = np.abs(joints - self._joints) > reach
        if jumped.any():
            self._odd, self.glitches = self._odd + 1, self.glitches + 1
            worst = int(np.argmax(np.abs(joints - self._joints) - reach))
            by = np.degrees(joints[worst] - self._joints[worst])
            return f"{self._spec.names[worst]} jumped by {by:.0f} deg: its encoder wrapped or fails"
        self._odd, self._joints, self._taken_ns = 0, joints, now_ns
        self._note_motion(joints, now_ns)
        return ""

    def _note_motion(self, joints: Array, now_ns: int) -> None:
        """Where a joint shows something new, its goal has left nothing behind."""
        moved = np.abs(joints - self._reading) > STILL
        self._reading = np.where(moved, joints, self._reading)
        self._moved_ns = np.where(moved, now_ns, self._moved_ns)
        if self._goals is None:
            return
        self._goal_then = np.where(moved, self._goals, self._goal_then)
        self._samples = self._samples + 1
        self._note_distance(now_ns)

    def _note_distance(self, now_ns: int) -> None:
        """How far each goal has gone on since its joint last moved, and since when it is further than LEFT."""
        assert self._goals is not None
        reading = self._reading if self._joints is not None else self._goals
        self._away = np.minimum(np.abs(self._goals - self._goal_then), np.abs(self._goals - reading))
        left = self._away > LEFT
        self._samples = np.where(left, self._samples, 0)
        self._left_ns = np.where(left & (self._left_ns > 0), self._left_ns, np.where(left, now_ns, 0))

    def verdict(self, now_ns: int) -> str:
        """What is wrong at a monotonic time [ns], in one line; "" where nothing is."""
        if silent := self.silent(now_ns):
            return silent
        if self._goals is None:
            return ""
        left = self._left_ns > 0
        rested = left & (self._left_ns - self._moved_ns > REST_S * 1e9) if self._joints is not None else left
        patience = np.where(rested, REST_STUCK_S, STUCK_S) * 1e9
        late = left & (now_ns - self._left_ns > patience) & (self._samples >= STUCK_SAMPLES)
        stuck = self._arm & late & (self._away > np.where(rested, REST_AWAY, AWAY))
        if not stuck.any():
            return ""
        names = ", ".join(name for name, is_stuck in zip(self._spec.names, stuck, strict=True) if is_stuck)
        return f"{names} does not follow its commands: is it blocked, without torque, or its encoder stuck?"

    def silent(self, now_ns: int) -> str:
        """Since when there was no sample, at a monotonic time [ns]; "" where that is not long."""
        away_ns = now_ns - self._heard_ns
        return f"no good answer for {away_ns * 1e-9:.2f} s" if away_ns > self._silence_ns else ""

    @property
    def lost(self) -> bool:
        """Whether samples have been impossible for too long in a row."""
        return self._odd >= GLITCHES
