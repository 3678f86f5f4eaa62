"""Worker: inference in a thread of its own; the newest observation wins, and none is ever queued."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_rl.observe.streams import Streams
from vla_rl.types import Candidates, Observation

IDLE_S = 0.05  # how often a worker looks without being woken
ERRORS_IN_A_ROW = 3
STANDSTILL_S = 1.0  # simulated time that stands still for so long waits for an answer
LONG_S = 2.0  # an inference under way for longer is worth a word


class Answers(Protocol):
    """An Engine, as far as the worker knows it."""

    def candidates(self, history: list[Observation]) -> Candidates:
        """Answer the newest of these observations."""


@dataclass(frozen=True)
class Answer:
    """Candidates, and the observations that they were drawn from, oldest first."""

    candidates: Candidates
    history: list[Observation]


class Worker:
    """Answers the newest observation, again and again, at most `rate` times a second.

    An answer whose instruction has changed meanwhile is dropped. An error is counted and the next observation tried.

    Args:
        streams: where observations come from.
        engine: who answers them.
        deliver: takes each answer, in the worker's thread.
        rate: answers a second at most [Hz]; where time is simulated it is measured by stamps.
        complain: takes one line after ERRORS_IN_A_ROW errors, in the worker's thread.

    Attributes:
        counts: "answered", "superseded" (dropped for a new instruction), "errors".
        seconds: how long the newest inferences took [s].
        error: what last went wrong, "" since the last success.
    """

    def __init__(
        self,
        streams: Streams,
        engine: Answers,
        deliver: Callable[[Answer], None],
        rate: float = 10.0,
        complain: Callable[[str], None] = print,
    ) -> None:
        if not rate > 0:
            raise ValueError(f"rate must be positive, got {rate}")
        self._streams, self._engine, self._deliver, self._complain = streams, engine, deliver, complain
        self._period_ns = round(1e9 / rate)
        self.counts = Counter[str]()
        self.seconds: deque[float] = deque(maxlen=256)
        self.error, self._errors_in_a_row = "", 0
        self._last: tuple[int, int] | None = None  # stamp and instruction number of the last observation answered
        self._due_ns = self._busy_since_ns = 0
        self._newest = (0, 0)  # stamp of the newest observation, and when it was first seen
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Answer no more; returns whether the inference under way has ended within `timeout` [s]."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)
        return not self.alive

    @property
    def failing(self) -> bool:
        """Whether the last ERRORS_IN_A_ROW inferences or more have failed."""
        return self._errors_in_a_row >= ERRORS_IN_A_ROW

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        lines = [f"inference failed: {self.error}"] if self.error else []
        busy_s = (time.monotonic_ns() - self._busy_since_ns) / 1e9 if self._busy_since_ns else 0.0
        return [*lines, f"inference under way: for {busy_s:.0f} s"] if busy_s > LONG_S else lines

    def report(self) -> dict[str, float]:
        """Counts, and the time an inference takes: `p50_ms`, `p99_ms`."""
        if not self.seconds:
            return dict(self.counts)
        p50, p99 = np.percentile(list(self.seconds), [50, 99]) * 1e3
        return {**self.counts, "p50_ms": float(p50), "p99_ms": float(p99)}

    def notify(self) -> None:
        """Something has arrived; costs next to nothing."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(IDLE_S)
            self._wake.clear()
            if not self._streams.config.simulated_time:
                self._stopping.wait(max(0, self._due_ns - time.monotonic_ns()) / 1e9)
            if not self._stopping.is_set():
                self.step()

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def step(self) -> bool:
        """Answer the newest observation, if there is one to answer; returns whether there was."""
        try:
            return self._step()
        except Exception as error:  # whatever a policy does, the next observation gets its chance
            self._failed(f"{type(error).__name__}: {error}".splitlines()[0])
            return True
        finally:
            self._busy_since_ns = 0

    def _step(self) -> bool:
        number, now_ns = self._streams.instruction_number, time.monotonic_ns()
        history = self._streams.history(now_ns)
        if not history or not self._is_due(history[-1].stamp_ns, number, now_ns):
            return False
        self._last, self._due_ns = (history[-1].stamp_ns, number), now_ns + self._period_ns
        self._busy_since_ns = now_ns
        candidates = self._engine.candidates(history)
        self.seconds.append((time.monotonic_ns() - now_ns) / 1e9)
        if self._stopping.is_set() or number != self._streams.instruction_number:
            self.counts["superseded"] += 1
            self._wake.set()
            return True
        self._deliver(Answer(candidates, history))
        self.counts["answered"] += 1
        self.error, self._errors_in_a_row = "", 0
        return True

    def _is_due(self, stamp_ns: int, number: int, now_ns: int) -> bool:
        """Whether this observation is another than the last, and, where time is simulated, late enough after it."""
        if stamp_ns != self._newest[0]:
            self._newest = (stamp_ns, now_ns)
        if self._last is None or number != self._last[1]:
            return True
        ahead_ns = stamp_ns - self._last[0]
        if not self._streams.config.simulated_time or ahead_ns <= 0:
            return ahead_ns != 0
        late_enough = ahead_ns >= self._period_ns - self._streams.config.period * 5e8
        return late_enough or now_ns - self._newest[1] > STANDSTILL_S * 1e9

    def _failed(self, line: str) -> None:
        self.error = line
        self.counts["errors"] += 1
        self._errors_in_a_row += 1
        if self._errors_in_a_row == ERRORS_IN_A_ROW:
            self._complain(f"inference failed {ERRORS_IN_A_ROW} times in a row, the arm holds: {line}")
