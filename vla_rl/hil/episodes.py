"""Episodes: which one is being recorded, and what each came to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vla_rl.hil.operator import Answer
from vla_rl.types import Outcome


@dataclass(frozen=True)
class EpisodeMark:
    """One episode as the operator sees it.

    Attributes:
        ordinal: counts from 0 since the desk was opened; the numbers in a session's folder are the recorder's own.
        recording: whether it goes on.
        outcome: what it was marked; `UNKNOWN` until then, and for ever where nobody marked it.
        discarded: whether it does not count.
        note: what the operator wrote about it.
        instruction: what was to be done.
        began_ns, ended_ns: monotonic times [ns]; 0 while it goes on.
        human_s: how long a human drove [s].
        takeovers: how often a human took over.
    """

    ordinal: int
    recording: bool = True
    outcome: Outcome = Outcome.UNKNOWN
    discarded: bool = False
    note: str = ""
    instruction: str = ""
    began_ns: int = 0
    ended_ns: int = 0
    human_s: float = 0.0
    takeovers: int = 0

    def seconds(self, now_ns: int) -> float:
        """How long it has been, or was [s]."""
        return max((self.ended_ns or now_ns) - self.began_ns, 0) * 1e-9


@dataclass(frozen=True)
class Statistics:
    """What a session came to so far; discarded episodes do not count.

    Attributes:
        episodes, successes, failures, unknown: closed ones.
        discarded: those that do not count.
        seconds: of the closed ones together [s].
        human_s: of that, a human drove [s].
        takeovers: how often a human took over.
        cycle_s: mean length of the successful ones [s], 0 where there is none.
    """

    episodes: int = 0
    successes: int = 0
    failures: int = 0
    unknown: int = 0
    discarded: int = 0
    seconds: float = 0.0
    human_s: float = 0.0
    takeovers: int = 0
    cycle_s: float = 0.0

    @property
    def success_rate(self) -> float:
        """Successes over all that were closed, 0 before the first."""
        return self.successes / self.episodes if self.episodes else 0.0

    @property
    def intervention_rate(self) -> float:
        """Share of the time that a human drove."""
        return self.human_s / self.seconds if self.seconds > 0 else 0.0


class Episodes:
    """The episode's state machine: idle, recording; every request is answered with (whether it was granted, why not).

    ::

        idle --start--> recording --success, failure, end--> idle
                            |------discard-----------------> idle      discard, idle: the last one, marked or not
                            |------re-record---------------> recording, after a discard

    Args:
        first: ordinal of the first episode.

    Attributes:
        closed: those that have ended, in order, discarded ones too.
    """

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._open: EpisodeMark | None = None
        self.closed: list[EpisodeMark] = []

    @property
    def current(self) -> EpisodeMark | None:
        """The one that goes on, or else the last one, or None before the first."""
        return self._open or (self.closed[-1] if self.closed else None)

    @property
    def recording(self) -> bool:
        """Whether one goes on."""
        return self._open is not None

    def start(self, now_ns: int, instruction: str = "") -> Answer:
        """Begin the next episode."""
        if self._open is not None:
            return False, f"episode {self._open.ordinal} is being recorded: mark, end or discard it first"
        self._open = EpisodeMark(self._next, instruction=instruction, began_ns=now_ns)
        self._next += 1
        return True, f"episode {self._open.ordinal} begins"

    def end(self, now_ns: int, outcome: Outcome = Outcome.UNKNOWN) -> Answer:
        """End the episode that goes on with an outcome."""
        if self._open is None:
            return False, self._idle(outcome)
        self.closed.append(replace(self._open, recording=False, outcome=outcome, ended_ns=now_ns))
        self._open = None
        return True, f"episode {self.closed[-1].ordinal}: {outcome}"

    def discard(self, now_ns: int) -> Answer:
        """Discard the episode that goes on, or the last one."""
        if self._open is not None:
            self.end(now_ns)
        if not self.closed or self.closed[-1].discarded:
            return False, "there is no episode to discard"
        self.closed[-1] = replace(self.closed[-1], discarded=True)
        return True, f"episode {self.closed[-1].ordinal} is discarded"

    def note(self, text: str) -> Answer:
        """Write about the episode that goes on, or the last one."""
        if self._open is not None:
            self._open = replace(self._open, note=text)
            return True, ""
        if not self.closed:
            return False, "there is no episode to write about"
        self.closed[-1] = replace(self.closed[-1], note=text)
        return True, ""

    def drove(self, seconds: float, takeovers: int = 0) -> None:
        """Count time in which a human drove, and how often one took over."""
        if self._open is not None:
            begun, was = self._open.takeovers + takeovers, self._open.human_s
            self._open = replace(self._open, human_s=was + seconds, takeovers=begun)

    def statistics(self) -> Statistics:
        """Of the closed episodes."""
        kept = [e for e in self.closed if not e.discarded]
        won = [e for e in kept if e.outcome is Outcome.SUCCESS]
        lost = sum(e.outcome is Outcome.FAILURE for e in kept)
        return Statistics(
            len(kept), len(won), lost, len(kept) - len(won) - lost, len(self.closed) - len(kept),
            sum(e.seconds(0) for e in kept), sum(e.human_s for e in kept), sum(e.takeovers for e in kept),
            sum(e.seconds(0) for e in won) / len(won) if won else 0.0,
        )  # fmt: skip

    def _idle(self, outcome: Outcome) -> str:
        if not self.closed:
            return "no episode is being recorded: start one first"
        last = self.closed[-1]
        return f"no episode is being recorded: episode {last.ordinal} has ended already, with outcome {last.outcome}"
