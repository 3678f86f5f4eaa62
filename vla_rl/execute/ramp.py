"""Ramp: a change of hands that takes its time."""

from __future__ import annotations

from vla_rl.types import Array


class Ramp:
    """Leads from where the arm is to whatever is wanted next, evenly over a duration.

    Args:
        duration_s: how long [s].
    """

    def __init__(self, duration_s: float) -> None:
        self._duration_ns = duration_s * 1e9
        self.cancel()

    def cancel(self) -> None:
        """No ramp, neither now nor next."""
        self._began_ns: int | None = None
        self._start: Array | None = None

    def prepare(self) -> None:
        """Whatever is wanted next begins a ramp."""
        self._began_ns, self._start = -1, None

    def between(self, here: Array, target: Array, now_ns: int) -> Array | None:
        """The target of now on the way from where the ramp began to `target`, (J,); None where there is no ramp.

        Args:
            here: where the arm is commanded to be, (J,), which is where a ramp begins.
            target: what is wanted, (J,).
            now_ns: the robot's time.
        """
        if self._began_ns is None:
            return None
        if self._start is None:
            self._began_ns, self._start = now_ns, here
        part = (now_ns - self._began_ns) / self._duration_ns
        if part >= 1.0:
            self.cancel()
            return None
        return self._start + part * (target - self._start)
