"""What a driver really did to a twin: counters, and the events of its servos in order."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

KEPT = 200_000
COUNTED = (
    "bytes_heard", "packets", "checksum_errors", "junk", "damaged", "bytes_unread", "collisions", "wrong_baud",
    "unknown_instructions", "writes", "wrong_id_writes", "altered_writes", "goals", "goals_outside",
    "goals_without_torque",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a servo.

    Attributes:
        at: when, monotonic clock [s].
        kind: `goal` (value in ticks) or `torque` (1 or 0).
        servo: its id.
        value: as the kind says.
    """

    at: float
    kind: str
    servo: int
    value: int


class Journal:
    """Counters and events; safe to read from any thread.

    Attributes:
        counts: by name. `goals_outside`: goals beyond a servo's own limits; `wrong_id_writes`: writes that one servo
            carried out and another was to have; `altered_writes`: that nobody was to have.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def note(self, at: float, kind: str, servo: int, value: int) -> None:
        """Write an event down."""
        with self._lock:
            self._events.append(Event(at, kind, servo, value))

    def events(self, kind: str = "", since: float = 0.0) -> list[Event]:
        """The events of a kind, or of all, from a time on [s]."""
        with self._lock:
            return [e for e in self._events if kind in ("", e.kind) and e.at >= since]
