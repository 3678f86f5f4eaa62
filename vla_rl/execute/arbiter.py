"""Arbiter: who may move the arm.

::

                 take_over                       pause
    AUTONOMOUS ------------> CORRECTING      any -----> PAUSED --resume--> AUTONOMOUS
               <------------                  any -----> STOPPED --reset_stop, fresh observation--> PAUSED
                 hand back                       stop

A stop latches; what clears it does not move the arm again, `resume` does. One human at a time: who takes over while
another one drives is refused, until that one falls silent.
"""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl.types import Mode

Answer = tuple[bool, str]


@dataclass(frozen=True)
class Edge:
    """One change of the mode.

    Attributes:
        number: counts from 1.
        mode: since then.
        stamp_ns: when, robot clock [ns].
    """

    number: int
    mode: Mode
    stamp_ns: int


class Arbiter:
    """The mode, and what may change it; every request is answered with (whether it was granted, why not).

    Attributes:
        mode: who may act.
        reason: why it is stopped, "" where it is not.
        edges: how often the mode has changed.
    """

    def __init__(self) -> None:
        self.mode = Mode.AUTONOMOUS
        self.reason = ""
        self.edges = 0
        self._new: list[Edge] = []

    def take_over(self, on: bool, now_ns: int, driven: bool = False) -> Answer:
        """A human takes the arm, or hands it back.

        Args:
            on: takes it.
            now_ns: the robot's time.
            driven: whether a human is driving it now.
        """
        if self.mode is Mode.STOPPED:
            return False, f"stopped ({self.reason}): reset_stop comes first"
        if on and driven and self.mode is Mode.CORRECTING:
            return False, "another human has taken over: hand back first"
        if on:
            return self._enter(Mode.CORRECTING, now_ns)
        if self.mode is not Mode.CORRECTING:
            return False, f"nobody has taken over: the mode is {self.mode}"
        return self._enter(Mode.AUTONOMOUS, now_ns)

    def pause(self, now_ns: int) -> Answer:
        """Hold until `resume`."""
        if self.mode is Mode.STOPPED:
            return False, f"stopped ({self.reason}): reset_stop comes first"
        return self._enter(Mode.PAUSED, now_ns)

    def resume(self, now_ns: int) -> Answer:
        """Go on after a pause or a cleared stop."""
        if self.mode is not Mode.PAUSED:
            return self.mode is Mode.AUTONOMOUS, f"only a pause can be resumed: the mode is {self.mode}"
        return self._enter(Mode.AUTONOMOUS, now_ns)

    def stop(self, reason: str, now_ns: int) -> Answer:
        """Hold until `reset_stop`; the first reason stays."""
        if self.mode is not Mode.STOPPED:
            self.reason = reason
        return self._enter(Mode.STOPPED, now_ns)

    def reset_stop(self, fresh: bool, now_ns: int) -> Answer:
        """Clear a stop, which needs a fresh observation; the arm stays paused."""
        if self.mode is not Mode.STOPPED:
            return False, f"not stopped: the mode is {self.mode}"
        if not fresh:
            return False, "no fresh observation: the stop stays"
        self.reason = ""
        return self._enter(Mode.PAUSED, now_ns)

    def new_edges(self) -> tuple[Edge, ...]:
        """The changes since this was last asked."""
        edges, self._new = tuple(self._new), []
        return edges

    def _enter(self, mode: Mode, now_ns: int) -> Answer:
        if mode is not self.mode:
            self.edges += 1
            self._new.append(Edge(self.edges, mode, now_ns))
        self.mode = mode
        return True, ""
