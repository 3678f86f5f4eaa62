"""Stream: the newest samples of one sensor, and what was wrong with the others."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

MOST_SAMPLES = 256


@dataclass(frozen=True, eq=False)
class Sample:
    """One message of a sensor.

    Attributes:
        value: joints (J,) [rad], an image (H, W, 3) uint8, or an Encoded one.
        stamp_ns: when it was captured, robot clock [ns].
        received_ns: when it arrived, monotonic clock [ns].
    """

    value: Any
    stamp_ns: int
    received_ns: int


@dataclass(eq=False)
class Stream:
    """One sensor's samples in the order of their stamps, and what was wrong with the others.

    Attributes:
        name: of the stream.
        keep_ns: samples older than the newest by more than this are forgotten.
        samples: newest last.
        suspect: the last sample whose stamp did not fit: the first of a new time, should the clock have stepped.
        counts: reason to the number of samples refused or remarked upon; "taken" counts the others.
    """

    name: str
    keep_ns: int
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    suspect: Sample | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def judge(self, sample: Sample, now_ns: int | None, max_future_ns: float) -> str:
        """Why the sample's stamp does not fit, or "": stamp_zero, future, duplicate, out_of_order."""
        if sample.stamp_ns <= 0:
            return "stamp_zero"
        if now_ns is not None and sample.stamp_ns - now_ns > max_future_ns:
            return "future"
        if not self.samples or sample.stamp_ns > self.samples[-1].stamp_ns:
            return ""
        return "duplicate" if sample.stamp_ns == self.samples[-1].stamp_ns else "out_of_order"

    def append(self, sample: Sample) -> None:
        """Take a sample that is newer than all others."""
        self.samples.append(sample)
        self.suspect = None
        self.counts["taken"] += 1
        while self.samples[0].stamp_ns < sample.stamp_ns - self.keep_ns:
            self.samples.popleft()

    def restart(self, now_ns: int, past_ns: float, future_ns: float) -> None:
        """Forget everything but what fits the clock as it is since it stepped to `now_ns`."""
        fits = [s for s in (*self.samples, self.suspect) if s and now_ns - past_ns <= s.stamp_ns <= now_ns + future_ns]
        self.samples.clear()
        self.samples.extend(sorted(fits, key=lambda s: s.stamp_ns))
        self.suspect = None

    def nearest(self, stamp_ns: int) -> Sample:
        """The sample captured nearest to a time."""
        return min(self.samples, key=lambda s: abs(s.stamp_ns - stamp_ns))

    @property
    def rate(self) -> float:
        """Samples a second [Hz] by their arrival, 0 where there are too few to tell."""
        if len(self.samples) < 2:
            return 0.0
        first, last = self.samples[0], self.samples[-1]
        return (len(self.samples) - 1) * 1e9 / max(1, last.received_ns - first.received_ns)
