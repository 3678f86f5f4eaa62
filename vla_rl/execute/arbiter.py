"""Arbiter: who may move the arm.

::

                 take_over                       pause
    AUTONOMOUS ------------> CORRECTING      any -----> PAUSED --resume--> AUTONOMOUS
               <------------                  any -----> STOPPED --reset_stop, fresh observation--> PAUSED
                 hand back                       stop

A stop latches; what clears it does not move the arm again, `resume` does.
"""

from __future__ import annotations

from vla_rl.types import Mode

Answer = tuple[bool, str]


class Arbiter:
    """The mode, and what may change it; every request is answered with (whether it was granted, why not)."""

    def __init__(self) -> None:
        self.mode = Mode.AUTONOMOUS
        self.reason = ""

    def take_over(self, on: bool) -> Answer:
        """A human takes the arm, or hands it back."""
        if self.mode is Mode.STOPPED:
            return False, f"stopped ({self.reason}): reset_stop comes first"
        if on:
            return self._enter(Mode.CORRECTING)
        if self.mode is not Mode.CORRECTING:
            return False, f"nobody has taken over: the mode is {self.mode}"
        return self._enter(Mode.AUTONOMOUS)

    def pause(self) -> Answer:
        """Hold until `resume`."""
        if self.mode is Mode.STOPPED:
            return False, f"stopped ({self.reason}): reset_stop comes first"
        return self._enter(Mode.PAUSED)

    def resume(self) -> Answer:
        """Go on after a pause or a cleared stop."""
        if self.mode is not Mode.PAUSED:
            return self.mode is Mode.AUTONOMOUS, f"only a pause can be resumed: the mode is {self.mode}"
        return self._enter(Mode.AUTONOMOUS)

    def stop(self, reason: str) -> Answer:
        """Hold until `reset_stop`; the first reason stays."""
        if self.mode is not Mode.STOPPED:
            self.reason = reason
        return self._enter(Mode.STOPPED)

    def reset_stop(self, fresh: bool) -> Answer:
        """Clear a stop, which needs a fresh observation; the arm stays paused."""
        if self.mode is not Mode.STOPPED:
            return False, f"not stopped: the mode is {self.mode}"
        if not fresh:
            return False, "no fresh observation: the stop stays"
        self.reason = ""
        return self._enter(Mode.PAUSED)

    def _enter(self, mode: Mode) -> Answer:
        self.mode = mode
        return True, ""
