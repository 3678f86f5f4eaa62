"""Guard: the robot's own last line. It needs no ROS, and it trusts no node.

Commands of one publisher pass, within the robot's limits; commands within the limits pass unchanged. Where they fall
silent, the arm is braked and held, the gripper at its last command. A command that was under way for longer than that
silence comes from before it (a stall, a cut network) and is refused.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from vla_rl.execute.hold import Hold
from vla_rl.execute.limits import Limits
from vla_rl.execute.measured import Measured
from vla_rl.execute.safety import SafetyFilter
from vla_rl.observe.clock import RobotClock
from vla_rl.robot import Sensed
from vla_rl.types import Array, RobotSpec

FRESH_S, MAX_FUTURE_S = 0.2, 0.05
_EVER_S = 1e9


class Guard:
    """What reaches the robot; safe to use from several threads.

    Args:
        spec: the robot.
        timeout_s: silence after which the arm is held [s]; infinite where time waits for commands.
        speed: the robot's seconds in one of ours; 1 in real time.

    Raises:
        ValueError: the robot has no limits.

    Attributes:
        publisher: who is followed, empty for nobody; others are refused until `release`, however long it is silent.
        holds, clamps: how often it was, and how many commands a limit cut.
        strangers, outdated: commands refused because of another publisher, or of their stamp.
    """

    def __init__(self, spec: RobotSpec, timeout_s: float, speed: float = 1.0) -> None:
        self._limits = Limits.from_spec(spec)
        self._timeout_ns, self._lock = round(min(timeout_s, _EVER_S) * 1e9), Lock()
        self._max_age_s = min(timeout_s, _EVER_S) * speed
        self._clock = RobotClock(MAX_FUTURE_S, simulated=speed != 1.0)
        self.holds = self.clamps = self.strangers = self.outdated = 0
        self.reset(0)

    def reset(self, now_ns: int) -> None:
        """Forget everything about motion: the arm is somewhere else, at rest.

        For the timeout from now on no command counts: whoever sends one may not know yet.
        """
        with self._lock:
            self._filter, self._measured = SafetyFilter(self._limits), Measured(self._limits)
            self.publisher = b""
            self._taken_ns, self._deaf_until_ns = 0, now_ns + self._timeout_ns if now_ns else 0
            self._hold: Hold | None = None
            self._started = False

    @property
    def holding(self) -> bool:
        """Whether the arm is held because commands fell silent."""
        return self._hold is not None

    def time_ns(self, now_ns: int) -> int:
        """The robot's time at a monotonic time [ns]."""
        return self._clock.now_ns(now_ns)

    def sense(self, sensed: Sensed, now_ns: int) -> None:
        """Take measured joints, at a monotonic time [ns]."""
        with self._lock:
            self._clock.update(sensed.stamp_ns, now_ns)
            self._measured.take(sensed.joints, sensed.stamp_ns, now_ns, False)

    def take(self, targets: Array, publisher: bytes, stamp_ns: int, now_ns: int) -> Array:
        """What to send to the robot, (J,) [rad], for a command (J,) [rad].

        Args:
            targets: what was commanded, (J,) [rad].
            publisher: who commanded it; empty where that is not known.
            stamp_ns: when, robot clock.
            now_ns: when it came, monotonic clock.

        Raises:
            ValueError: of another publisher than the one followed or of nobody knows which, older than the silence
                that is allowed or from the future, not finite, or before the robot was ever sensed.
        """
        with self._lock:
            if now_ns < self._deaf_until_ns:
                raise ValueError("the robot was reset a moment ago: the command was meant for another scene")
            if not publisher:
                self.strangers += 1
                raise ValueError("several publishers of commands, and no telling whose this is: none is followed")
            if publisher != (self.publisher or publisher):
                self.strangers += 1
                raise ValueError("a second publisher of commands: its commands are not mixed in")
            if not self._started:
                self._begin()
            self._refuse_outdated(stamp_ns, now_ns)
            filtered = self._filter.step(targets)
            self.publisher, self._taken_ns, self._hold = publisher, now_ns, None
            self.clamps += bool(filtered.clamped)
            return filtered.command

    def _refuse_outdated(self, stamp_ns: int, now_ns: int) -> None:
        age = (self._clock.now_ns(now_ns) - stamp_ns) * 1e-9
        if not -MAX_FUTURE_S <= age <= self._max_age_s:
            self.outdated += 1
            raise ValueError(
                f"a command stamped {age:.3f} s ago; header.stamp must be the robot's time, as joint_states tell it, "
                f"at most {self._max_age_s:.3f} s ago"
            )

    def release(self) -> None:
        """Whoever was followed has left: the next to command is followed."""
        with self._lock:
            self.publisher = b""

    def _begin(self) -> None:
        if self._measured.joints is None:
            raise ValueError("the robot has not been sensed yet")
        self._filter.reset(self._measured.joints)
        self._started = True

    @property
    def _deadline_ns(self) -> int:
        return self._taken_ns + self._timeout_ns if self._taken_ns else 0

    def due_in(self, now_ns: int) -> float:
        """Seconds until the arm must be held, at most the timeout; 0 while it must."""
        if not self._started:
            return self._timeout_ns * 1e-9
        return min(max(self._deadline_ns - now_ns, 0), self._timeout_ns) * 1e-9

    def hold(self, now_ns: int) -> Array | None:
        """The next command of a hold, (J,) [rad], once a period; None while commands come or nobody ever commanded."""
        with self._lock:
            if not self._started or now_ns < self._deadline_ns:
                return None
            if self._hold is None:
                self._hold = Hold(self._filter)
                self.holds += 1
            fresh = self._measured.age(now_ns) <= FRESH_S
            return np.array(self._hold.command(self._measured, fresh))
