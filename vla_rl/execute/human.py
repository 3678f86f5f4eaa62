"""Human: what a human's devices want, from one of them at a time, met slowly where it begins far from the arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl.execute.actions import ChunkReader
from vla_rl.types import Array


@dataclass(frozen=True, eq=False)
class HumanCommand:
    """A human's joint targets (J,) [rad]: their stamp, robot clock, receipt, monotonic clock [ns], and publisher."""

    targets: Array
    stamp_ns: int
    received_ns: int
    publisher: bytes


class Human:
    """Of several devices, the one that drives first after a takeover is followed until the next takeover.

    Args:
        reader: knows the robot's joints and ranges.
        max_age_s: what is older is not meant any more [s].
        gap: targets no farther than this from the arm have been met [rad].
        step: how far a joint may go in one period until then [rad].

    Attributes:
        newest: the last command that was taken, None where it no longer counts.
    """

    def __init__(self, reader: ChunkReader, max_age_s: float, gap: float, step: float) -> None:
        self._reader, self._max_age_ns, self._gap, self._step = reader, round(max_age_s * 1e9), gap, step
        self._driver: bytes | None = None
        self.forget()

    def forget(self) -> None:
        """What was said counts no more, and whoever drives has to be met first; who that is stays until a takeover."""
        self.newest: HumanCommand | None = None
        self._met = False

    def begin(self, said: HumanCommand | None) -> None:
        """A takeover by a device that said this just before, or by whichever is heard first."""
        self.newest, self._driver = said, said.publisher if said else None

    def take(self, command: HumanCommand, driving: bool) -> str:
        """Take a command, of a human who has the arm or not; returns "" or, where it is rejected, why."""
        if command.targets.shape != (self._reader.joints,) or not np.isfinite(command.targets).all():
            return f"a human's command is {self._reader.joints} finite joint targets, got {command.targets}"
        if far := self._reader.far(command.targets):
            return f"a human's targets of {', '.join(far)} are far outside the limits: another unit?"
        if driving and self._driver not in (None, command.publisher):
            return "another device has the arm: take over to drive with this one"
        if driving:
            self._driver = command.publisher
        self.newest = command
        return ""

    def fresh(self, monotonic_ns: int) -> bool:
        """Whether a command was received just now."""
        return self.newest is not None and monotonic_ns - self.newest.received_ns <= self._max_age_ns

    def wanted(self, monotonic_ns: int) -> Array | None:
        """The targets of now, (J,) [rad]; None where the human is silent, and then has to be met again."""
        if self.newest is None or not self.fresh(monotonic_ns):
            self._met = False
            return None
        return self.newest.targets

    def approach(self, here: Array, target: Array) -> Array | None:
        """The target of now on the slow way from `here` to `target`, (J,) [rad]; None once they have met."""
        away = target - here
        self._met = self._met or bool(np.abs(away).max() <= self._gap)
        return None if self._met else here + np.clip(away, -self._step, self._step)
