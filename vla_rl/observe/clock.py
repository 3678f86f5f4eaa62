"""RobotClock: the robot's time, derived from the stamps it sends and a monotonic clock of our own."""

from __future__ import annotations

SLEW = 1e-3  # how fast the estimate may fall behind, for clocks that drift apart [s/s]


class RobotClock:
    """What time it is on the robot, whatever anybody's wall clock does.

    A stamp arrives late or in time, never early: the estimate follows the least delayed stamps, and falls back only
    slowly. A stamp that is ahead of it by more than `max_future_s`, or older than the one before, is a clock step.

    Args:
        max_future_s: how far ahead of the estimate a stamp may be [s].
        simulated: the robot's time does not go with ours (lock-step, faster than real time): now is the newest stamp.
    """

    def __init__(self, max_future_s: float = 0.05, simulated: bool = False) -> None:
        self._ahead_ns, self._simulated = round(max_future_s * 1e9), simulated
        self._stamp_ns = self._received_ns = self._offset_ns = 0

    @property
    def newest_ns(self) -> int:
        """The newest stamp, 0 before the first."""
        return self._stamp_ns

    @property
    def started(self) -> bool:
        """Whether any stamp has arrived."""
        return self._stamp_ns > 0

    def update(self, stamp_ns: int, received_ns: int) -> bool:
        """Take a stamp of the robot, received at a monotonic time [ns]; returns whether the robot's clock stepped."""
        lead = stamp_ns - self.now_ns(received_ns)
        stepped = self.started and (stamp_ns < self._stamp_ns or (lead > self._ahead_ns and not self._simulated))
        if stepped or not self.started:
            self._offset_ns = stamp_ns - received_ns
        else:
            fall = round(SLEW * (received_ns - self._received_ns))
            self._offset_ns += max(lead, -fall)
        self._stamp_ns, self._received_ns = stamp_ns, received_ns
        return stepped

    def now_ns(self, monotonic_ns: int) -> int:
        """The robot's time at a monotonic time [ns]; 0 before the first stamp."""
        if self._simulated or not self.started:
            return self._stamp_ns
        return self._offset_ns + monotonic_ns
