"""What the operator said of an episode: `episode/status`, recorded with it, so that it outlives the recorder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vla_rl.record import cdr
from vla_rl.record.mcap_file import Entry
from vla_rl.types import Outcome

STATUS = "episode/status"
OUTCOMES = (Outcome.UNKNOWN, Outcome.SUCCESS, Outcome.FAILURE)
LONGEST_NOTE, MOST_NOTES = 10_000, 100  # characters, notes of an episode: its JSON stays one that is read


@dataclass(frozen=True)
class Marks:
    """What an episode came to; never guessed: an episode that nobody marked is unknown.

    Attributes:
        recording: whether the operator wants it recorded.
        ordinal: his count of episodes, -1 where unknown.
        outcome: success, failure or unknown.
        discarded: it goes to the trash.
        notes: his words, in order; the newest MOST_NOTES.
        human_s: time that he drove [s].
        takeovers: how often he took the arm.
    """

    recording: bool = False
    ordinal: int = -1
    outcome: Outcome = Outcome.UNKNOWN
    discarded: bool = False
    notes: tuple[str, ...] = ()
    human_s: float = 0.0
    takeovers: int = 0

    def then(self, later: Marks) -> Marks:
        """What holds after a later status: its words come after ours, a mark is not undone by an unmarked one."""
        notes = tuple(dict.fromkeys([*self.notes, *later.notes]))[-MOST_NOTES:]
        outcome = self.outcome if later.outcome is Outcome.UNKNOWN else later.outcome
        return replace(later, notes=notes, outcome=outcome, discarded=self.discarded or later.discarded)


def marks(names: Sequence[str], numbers: Sequence[float], note: str) -> Marks:
    """The marks in a status: a stamped named vector whose `frame_id` is a note.

    Raises:
        ValueError: it lacks `recording`, or a number makes no sense.
    """
    values = dict(zip(names, (float(n) for n in numbers), strict=True))
    if strange := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"{STATUS}: '{strange[0][:40]}' is not finite")
    if "recording" not in values:
        raise ValueError(f"{STATUS} without 'recording'; it has {', '.join(names) or 'nothing'}")
    code = round(values.get("outcome", 0.0))
    if not 0 <= code < len(OUTCOMES):
        raise ValueError(f"{STATUS}: outcome {code}; there are 0 (unknown), 1 (success), 2 (failure)")
    text = note.strip()[:LONGEST_NOTE]
    return Marks(
        recording=values["recording"] > 0,
        ordinal=round(values.get("ordinal", -1.0)),
        outcome=OUTCOMES[code],
        discarded=values.get("discarded", 0.0) > 0,
        notes=(text,) if text else (),
        human_s=values.get("human_s", 0.0),
        takeovers=round(values.get("takeovers", 0.0)),
    )


def to_dict(given: Marks) -> Mapping[str, object]:
    """JSON-ready form."""
    return {
        "ordinal": given.ordinal,
        "outcome": str(given.outcome),
        "notes": list(given.notes),
        "human_s": round(given.human_s, 3),
        "takeovers": given.takeovers,
    }


def marks_of(statuses: Iterable[Entry]) -> Marks:
    """What had been said of an episode by the time its recorder was killed, by its recorded statuses."""
    found: Marks | None = None
    for said in map(_said, statuses):
        if said is not None and said.recording and (found is None or said.ordinal != found.ordinal):
            found = said
        elif said is not None and found is not None:  # what comes before its beginning is of the episode before
            found = found.then(said)
    return found or Marks()


def _said(entry: Entry) -> Marks | None:
    """The marks in a recorded status; None in a stranger's."""
    try:
        message = cdr.decode(entry.data, cdr.JOINT_STATE)
        return marks(message.name, list(message.position), message.header.frame_id)
    except ValueError:
        return None
