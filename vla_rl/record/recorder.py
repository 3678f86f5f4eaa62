"""Recorder: follows what the operator says of episodes, and takes every message while one is under way.

An episode begins with the newest message from before it of every topic that says how things are, so that its first step
has pictures, joints, an instruction, a mode and the chunk under way; what happened before is not repeated (EVENTS). It
ends when the operator says so; what is never marked is unknown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vla_rl.record import cdr
from vla_rl.record.folder import EpisodeEntry
from vla_rl.record.marks import LONGEST_NOTE, Marks
from vla_rl.record.recording import Recording, warm_up
from vla_rl.record.session import Session

EVENTS = frozenset(
    ("control/step", "joint_commands", "human/command", "policy/candidates", "policy/context", "steering/values")
)
ABOUT = "session"  # topic of a String, the first message of every episode: how the graph was set up, as JSON


@dataclass(frozen=True)
class Message:
    """A message as it came.

    Attributes:
        topic: relative name.
        kind: ROS type.
        data: serialised, CDR.
        received_ns: monotonic clock [ns].
        publisher, sequence: its publisher's identity and count, b"" and 0 where the middleware does not tell.
        stamped: whether it begins with a header.
    """

    topic: str
    kind: str
    data: bytes
    received_ns: int
    publisher: bytes = b""
    sequence: int = 0
    stamped: bool = True


class Recorder:
    """Fills a session.

    Args:
        session: where episodes go.
        about: asked at the beginning of each: the text of its ABOUT message.
        failed: as in `Recording`.
        ended: told of every episode that is complete, the discarded ones too.
    """

    def __init__(
        self,
        session: Session,
        about: Callable[[], str] = lambda: "{}",
        failed: Callable[[Exception], None] = lambda _: None,
        ended: Callable[[EpisodeEntry], None] = lambda _: None,
    ) -> None:
        warm_up()
        self.session = session
        self._about, self._failed, self._ended = about, failed, ended
        self._newest: dict[str, Message] = {}
        self._recording: Recording | None = None
        self._marks = Marks()
        self._notes: list[str] = []
        self._lock = threading.RLock()

    @property
    def recording(self) -> Recording | None:
        """The episode under way."""
        return self._recording

    @property
    def lost(self) -> int:
        """Messages that the episode under way lacks."""
        return sum(self._recording.lost.values()) if self._recording else 0

    def take(self, message: Message) -> None:
        """Take a message, from any thread; returns at once."""
        with self._lock:
            before = self._newest.get(message.topic)
            if before and message.sequence and _same(before, message):  # two subscriptions heard the same
                return
            self._newest[message.topic] = message
            if self._recording is not None:
                self._put(message)

    def refuse(self, topic: str, publisher: bytes = b"", sequence: int = 0) -> None:
        """A message is not taken, for one that is too large: it counts as lost; identity and count as of a Message."""
        with self._lock:
            if self._recording is not None:
                self._recording.refuse(topic, publisher, sequence)

    def mark(self, marks: Marks) -> None:
        """Follow the operator: begin, or complete what is under way.

        Raises:
            DiskFullError: too little room.
        """
        with self._lock:
            under_way = self._recording is not None
            another = under_way and marks.recording and marks.ordinal != self._marks.ordinal
            self._marks = self._marks.then(marks) if under_way and not another else marks
            if under_way and not marks.recording:
                self.end()
            elif marks.recording and (another or not under_way):
                if another:
                    self._marks = Marks()
                    self.end()
                self._marks = marks
                self._begin()

    def note(self, text: str) -> None:
        """Remember some words with the episode under way."""
        with self._lock:
            if text := text.strip()[:LONGEST_NOTE]:
                self._notes.append(text)

    def end(self, damage: tuple[str, ...] = (), about: Mapping[str, Any] | None = None) -> None:
        """Complete the episode under way, if there is one, with what was said of it so far."""
        with self._lock:
            if self._recording is None:
                return
            self._recording, notes, self._notes = None, tuple(self._notes), []
            marks = replace(self._marks, notes=(*self._marks.notes, *notes))
            self._ended(self.session.end(marks, {**(about or {}), "damage": list(damage)}))

    def close(self) -> None:
        """Complete what is under way, and the session."""
        try:
            self.end()
        finally:
            self.session.close()

    def _begin(self) -> None:
        recording = self._recording = self.session.begin(self._failed)
        recording.put(ABOUT, cdr.STRING, cdr.string(self._about()), stamped=False)
        for message in sorted(self._newest.values(), key=lambda each: each.received_ns):
            if message.topic not in EVENTS:
                self._put(message)

    def _put(self, message: Message) -> None:
        assert self._recording is not None
        self._recording.put(
            message.topic, message.kind, message.data, message.received_ns, message.publisher, message.sequence,
            message.stamped,
        )  # fmt: skip


def _same(one: Message, other: Message) -> bool:
    return (one.publisher, one.sequence) == (other.publisher, other.sequence)
