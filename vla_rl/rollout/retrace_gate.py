"""Retrace the gate: a recorded episode once more through the controller; commands and clamps must be the same.

A control/step says which measurement and which human's command had been heard by then, which chunk was in play and when
the mode changed: the controller hears the same again in that order, its monotonic clock being the robot's. What state
it was in when the episode began is not on record; it is compared from where that can be known: where three commands in
a row passed unclamped, the filter's position, velocity and acceleration are theirs, and all chunks in play are on the
tape. After a difference the state is learned anew, so that every difference is one of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller, Tick
from vla_rl.record.tape import MODES, Joints, Period, Tape
from vla_rl.rollout.retrace import Part
from vla_rl.types import ActionChunk, Mode, RobotSpec, Source

KNOWN = 3  # commands from which the filter's state follows
GUESSES = 10  # what was clamped before may still be in mind; but not for longer
MOVING = (Source.POLICY, Source.HUMAN)
_LATE_NS = 1_000_000  # after the period before: when something that came between two periods is taken to have come


def retrace_gate(tape: Tape, spec: RobotSpec, config: ControlConfig) -> Part:
    """Command every period again.

    Args:
        tape: the episode.
        spec: the robot.
        config: of the controller that commanded it.
    """
    part, again = Part(), _Again(spec, config)
    heard = _Heard(tape, spec)
    recent: deque[Period] = deque(maxlen=KNOWN)
    first_ns = tape.periods[0].stamp_ns if tape.periods else 0
    for before, period in pairwise(tape.periods):
        recent.append(before)
        if period.stamp_ns <= before.stamp_ns:
            part.skipped["the robot's clock went back"] += 1
            again.lost()
            continue
        heard.tell(again, before, period)
        open_loop = period.stamp_ns - first_ns <= config.max_open_loop_s * 1e9
        if not again.known and not (not open_loop and again.learn(recent)):
            again.tick(period.stamp_ns)
            part.skipped["the controller's state is not known yet"] += 1
            continue
        differs = _other(again.tick(period.stamp_ns), period)
        if differs and 0 < again.guesses <= GUESSES:
            part.skipped["the controller's state is not known yet"] += 1
        else:
            part.note(differs and f"period {period.stamp_ns}: {differs}")
        again.confirm(not differs)
    return part


class _Again(Controller):
    """The controller once more, which can be put into a state that the recorded commands tell.

    Attributes:
        known: whether its state is taken to be that of the recorded one.
        guesses: how often it was learned in vain since it was last confirmed; 0 while it is confirmed.
    """

    def __init__(self, spec: RobotSpec, config: ControlConfig) -> None:
        super().__init__(spec, config)
        self.known, self.guesses = False, 1
        self.activate()

    def lost(self) -> None:
        """Its state is not that of the recorded one any more."""
        self.known, self.guesses = False, 1

    def confirm(self, same: bool) -> None:
        """A period was the same, or was not."""
        self.known, self.guesses = same, 0 if same else self.guesses + 1

    def learn(self, recent: deque[Period]) -> bool:
        """Take over what the last commands tell; returns whether they tell enough."""
        plain = [p for p in recent if p.executed is not None and p.source in MOVING and not p.clamped]
        if len(plain) < KNOWN or len({p.mode for p in plain}) > 1:
            return False
        commands = [p.executed for p in plain if p.executed is not None]
        before, velocity = commands[0], np.zeros_like(commands[0])
        motion, dt = self._filter, self.limits.dt
        motion.reset(before)
        for command in commands[1:]:
            faster = (command - before) / dt
            motion._acceleration, motion._velocity = (faster - velocity) / dt, faster
            before, velocity = command, faster
        motion.command, motion._targets = commands[-1], [commands[-1], commands[-2]]
        self._moving, self._hold, self._sent_last = True, None, commands[-1]
        self._commands.extend(commands)
        self._arbiter.mode, self.known = plain[-1].mode, True
        return True


class _Heard:
    """What the controller heard, told again up to each period."""

    def __init__(self, tape: Tape, spec: RobotSpec) -> None:
        self._spec = spec
        self._joints, self._human, self._chunks = deque(tape.joints), deque(tape.human), deque(tape.chosen)

    def tell(self, again: _Again, before: Period, period: Period) -> None:
        """Everything that the controller heard between two periods, in order."""
        events = [*self._measured(again, period), *self._commanded(again, before, period), *_edges(again, period)]
        for _, happen in sorted(events, key=lambda event: event[0]):
            happen()
        while self._chunks and self._chunks[0].stamp_ns <= period.chunk_stamp_ns:
            chosen = self._chunks.popleft()
            chunk = ActionChunk(chosen.chunks[0], self._spec.action_spec, chosen.dt, chosen.stamp_ns)
            again.chunk(chunk, chosen.candidate, before.stamp_ns + _LATE_NS)

    def _measured(self, again: _Again, period: Period) -> Iterator[tuple[int, Any]]:
        for each in _up_to(self._joints, _stamp(period.values, "joints_stamp")):
            yield each.stamp_ns, lambda each=each: again.observe(each.values, each.stamp_ns, each.stamp_ns)

    def _commanded(self, again: _Again, before: Period, period: Period) -> Iterator[tuple[int, Any]]:
        for each in _up_to(self._human, _stamp(period.values, "human_stamp")):
            came = min(max(before.stamp_ns + _LATE_NS, each.stamp_ns), period.stamp_ns)
            yield came, lambda each=each, came=came: again.human(each.values, came, b"", each.stamp_ns)


def _up_to(waiting: deque[Joints], stamp_ns: int) -> Iterator[Joints]:
    while waiting and waiting[0].stamp_ns <= stamp_ns:
        yield waiting.popleft()


def _edges(again: _Again, period: Period) -> Iterator[tuple[int, Any]]:
    """The changes of mode in a period, as the calls that made them."""
    numbers = sorted(int(name.split("/")[1]) for name in period.values if name.startswith("edge/") and "/mode" in name)
    for number in numbers:
        mode = MODES[round(period.values[f"edge/{number}/mode"])]
        at_ns = period.stamp_ns - round(period.values[f"edge/{number}/age"] * 1e9)
        yield at_ns, lambda mode=mode, at_ns=at_ns: _change(again, mode, at_ns)


def _change(again: _Again, mode: Mode, at_ns: int) -> None:
    if mode is Mode.STOPPED:
        again.stop(at_ns=at_ns)
    elif mode is Mode.CORRECTING:
        again.take_over(True, at_ns)
    elif mode is Mode.PAUSED:
        (again.reset_stop if again.mode is Mode.STOPPED else again.pause)(at_ns)
    elif again.mode is Mode.CORRECTING:
        again.take_over(False, at_ns)
    else:
        again.resume(at_ns)


def _stamp(values: Mapping[str, float], what: str) -> int:
    return round(values[f"{what}_s"]) * 10**9 + round(values[f"{what}_ns"]) if values[f"{what}_s"] >= 0 else -1


def _other(tick: Tick, period: Period) -> str:
    """How a period differs from the recorded one, "" where it does not."""
    if tick.mode is not period.mode or tick.source is not period.source:
        return f"{tick.source.name} in {tick.mode}, recorded {period.source.name} in {period.mode}"
    for what, now, then in (("proposed", tick.proposed, period.proposed), ("executed", tick.command, period.executed)):
        if (now is None) != (then is None):
            return f"{what} {'nothing' if now is None else 'something'}, recorded the contrary"
        if now is not None and then is not None and not np.array_equal(now, then):
            return f"{what} up to {np.abs(now - then).max():.3g} rad apart"
    if period.source is not Source.HOLD and ",".join(tick.clamped) != period.why:
        return f"clamped by {','.join(tick.clamped) or 'nothing'}, recorded {period.why or 'nothing'}"
    return ""
