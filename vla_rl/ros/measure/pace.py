"""Pace: whether a machine kept up with real time, so that a slow machine is told apart from a bad policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.types import Source

if TYPE_CHECKING:
    from vla_rl.ros.measure.watch import Heard

LATE = 1.5  # a period this many times too long is an overrun
_WINDOW = 300  # periods; over longer ones the system's clock may drift against the monotonic one
EARLY = 0.1  # periods by which a time may be early
SLOW = 0.02  # share of periods from which on figures say more of the machine than of the policy


@dataclass
class Pace:
    """Sums over episodes.

    Attributes:
        rate: of the loops [Hz].
        periods: control periods from the first action of an episode on.
        control_overruns, robot_overruns: periods that took half as long again as they should.
        held: periods in which the arm waited for a chunk.
        old_chunks: commands from a chunk that answers an earlier episode; never more than none.
        ages_ms: age of the observation behind every action [ms].
    """

    rate: float
    periods: int = 0
    control_overruns: int = 0
    robot_overruns: int = 0
    held: int = 0
    old_chunks: int = 0
    ages_ms: list[float] = field(default_factory=list)

    def add(self, heard: Heard, begun_ns: int, ended_ns: int) -> None:
        """Count one episode.

        Args:
            heard: what was heard since its reset.
            begun_ns: stamp of its first period, robot clock.
            ended_ns: when its end was heard of, system clock.
        """
        until_end = [t for t in heard.ticks if t.received_ns <= ended_ns]
        acting = [t for t in until_end if t.source is Source.POLICY]
        if not acting:
            return
        ticks = [t for t in until_end if t.received_ns >= acting[0].received_ns]
        self.periods += len(ticks)
        self.held += sum(t.source is Source.HOLD for t in ticks)
        self.old_chunks += sum(t.chunk_stamp_ns < begun_ns for t in acting)
        self.control_overruns += self._overruns([t.received_ns for t in ticks])
        self.robot_overruns += self._overruns([s.stamp_ns for s in heard.statuses if s.stamp_ns >= begun_ns])
        self.ages_ms += [(t.received_ns - t.chunk_stamp_ns) / 1e6 for t in acting]

    def _overruns(self, times_ns: Sequence[int]) -> int:
        return int((np.diff(times_ns) > LATE * 1e9 / self.rate).sum())

    @property
    def slow(self) -> bool:
        """Whether the machine, or the policy on it, was too slow for real time."""
        return max(self.control_overruns, self.robot_overruns, self.held) > SLOW * self.periods

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready figures."""
        ages = np.percentile(self.ages_ms, [50, 99]) if self.ages_ms else (0.0, 0.0)
        counts = {k: getattr(self, k) for k in ("periods", "control_overruns", "robot_overruns", "held", "old_chunks")}
        return {**counts, "age_p50_ms": float(ages[0]), "age_p99_ms": float(ages[1]), "slow": self.slow}


def lateness_ms(times_ns: NDArray[np.int64], period_ns: float) -> NDArray[np.float64]:
    """How much later than an even schedule each of N times is, (N,) [ms]; the earliest of a window is on time.

    No two times share a period, so one that comes after its own has ended, and right before the next, is late, and not
    early for the next: taken for early it would make all others of its window late.

    Args:
        times_ns: increasing, (N,) [ns]; some may be missing.
        period_ns: of the schedule [ns].
    """
    windows = [times_ns[i : i + _WINDOW] for i in range(0, len(times_ns), _WINDOW)]
    return np.concatenate([_late_ns(window, period_ns) for window in windows]) / 1e6


def _late_ns(times_ns: NDArray[np.int64], period_ns: float) -> NDArray[np.float64]:
    passed = (times_ns - times_ns[0]).astype(np.float64)
    turn = np.exp(2j * np.pi * passed / period_ns)  # where in its period each is: most are on time
    phase = np.angle(np.median(turn.real) + 1j * np.median(turn.imag)) / (2 * np.pi) * period_ns
    place, count = np.floor((passed - phase) / period_ns + EARLY), np.arange(len(passed))
    place = np.minimum.accumulate((place - count)[::-1])[::-1] + count
    late = passed - phase - place * period_ns
    return np.asarray(late - late.min())
