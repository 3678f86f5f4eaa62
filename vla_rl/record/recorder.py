"""Recorder: follows what the operator says of episodes, and takes every message while one is under way.

An episode begins with the newest message from before it of every topic that says how things are, so that its first step
has pictures, joints, an instruction, a mode and the chunk under way; what happened before is not repeated (EVENTS). It
ends when the operator says so; what is never marked is unknown. What is said of the last one afterwards, a discard, a
second mark or a note, still reaches it.
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


@dataclass(frozen=True)
class _Told:
    """What was said of an episode, and by whom.

    Attributes:
        publisher: whose count of episodes the marks' `ordinal` is.
        marks: all that was said so far.
        entry: what it came to, None while it goes on.
    """

    publisher: bytes
    marks: Marks
    entry: EpisodeEntry | None = None

    def is_of(self, publisher: bytes, marks: Marks) -> bool:
        """Whether a status speaks of this episode: another publisher's count says nothing of it."""
        return (self.publisher, self.marks.ordinal) == (publisher, marks.ordinal)

    def then(self, marks: Marks) -> _Told:
        """After more was said."""
        return replace(self, marks=self.marks.then(marks))

    def noted(self, words: str) -> _Told:
        """After some words."""
        return self.then(replace(self.marks, notes=(words,)))


class Recorder:
    """Fills a session.

    Args:
        session: where episodes go.
        about: the text of an episode's ABOUT message; asked at the beginning of each, and by `tell`.
        failed: as in `Recording`.
        ended: told of every episode that is complete, the discarded ones too, and again when it is marked afterwards.
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
        self._told = _Told(b"", Marks())
        self._last: _Told | None = None
        self._known = ""
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

    def mark(self, marks: Marks, publisher: bytes = b"") -> None:
        """Follow the operator: begin, complete what is under way, or change what the last one came to.

        A status that speaks of another episode ends the one under way, which keeps only what was said of itself.

        Args:
            marks: what is said now.
            publisher: by whom; an operator's end that was started again counts from 0 again, and is another one.

        Raises:
            DiskFullError: too little room.
        """
        with self._lock:
            if self._recording is not None and self._told.is_of(publisher, marks):
                self._told = self._told.then(marks)
                if not marks.recording:
                    self.end()
            elif marks.recording:
                self.end()
                self._begin(_Told(publisher, marks))
            elif self._last is not None and self._last.is_of(publisher, marks):
                self._revise(self._last.then(marks))
            else:
                self.end()

    def note(self, text: str) -> None:
        """Remember some words with the episode under way, or else with the last one.

        Raises:
            DiskFullError: too little room.
            ValueError: there was no episode yet.
        """
        with self._lock:
            if not (words := text.strip()[:LONGEST_NOTE]):
                return
            if self._recording is not None:
                self._told = self._told.noted(words)
            elif self._last is not None:
                self._revise(self._last.noted(words))
            else:
                raise ValueError("a note before the first episode is about none: start one first")

    def tell(self) -> None:
        """Write down what has become known of the set-up since the episode under way began."""
        with self._lock:
            if self._recording is not None and (about := self._about()) != self._known:
                self._known = about
                self._recording.put(ABOUT, cdr.STRING, cdr.string(about), stamped=False)

    def end(self, damage: tuple[str, ...] = (), about: Mapping[str, Any] | None = None) -> None:
        """Complete the episode under way, if there is one, with what was said of it so far."""
        with self._lock:
            if self._recording is None:
                return
            self._recording = self._last = None
            entry = self.session.end(self._told.marks, {**(about or {}), "damage": list(damage)})
            self._last = replace(self._told, entry=entry)
            self._ended(entry)

    def close(self) -> None:
        """Complete what is under way, and the session."""
        try:
            self.end()
        finally:
            self.session.close()

    def _revise(self, told: _Told) -> None:
        """Have the last episode's file say what was said of it by now."""
        assert told.entry is not None
        if told != self._last:
            entry = self.session.revise(told.entry, told.marks)
            self._last = replace(told, entry=entry)
            self._ended(entry)

    def _begin(self, told: _Told) -> None:
        self._recording = self.session.begin(self._failed)
        self._told, self._known = told, ""
        self.tell()
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
