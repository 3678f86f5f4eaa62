"""Stalls: what a listener saw of a fault, and whether the arm was held in time, kept its grip and forgot old chunks.

::

    policy stopped                                                policy goes on
          |                                                             |
    ------x--- actions of the last chunk ---|.......|#### hold #########|####|--- actions of a newer chunk ---
                                            |<----->|                   |<-->|
                              last action due  late                     nothing older than x may be executed

All times are the host's system clock [ns], stamped by the sender's middleware: what a listener hears late, or all at
once when a cable is back, is judged by when it was said. In real time that is the robot's clock too. A policy or
steering fault is judged from control's own steps. A control fault is judged from what the robot executed, because
control is then silent; and what may not come from an old chunk is, after any fault, what the robot executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from vla_rl.types import Array, RobotSpec, Source

SETTLE_NS = 300_000_000  # a brake from full speed at the SO-101's limits takes about 0.2 s
EXACT = 1e-6  # [rad]: float32 on the way


@dataclass(frozen=True, eq=False)
class Tick:
    """One period as control told it.

    Attributes:
        received_ns: arrival at the listener's middleware.
        executed: command, (J,) [rad]; NaN where nothing was sent and the robot holds by itself.
        source: who acted.
        chunk_stamp_ns: stamp of the chunk in use, -1 where none.
        sent_ns: when control said so.
        stamp_ns: of the command, robot clock.
    """

    received_ns: int
    executed: Array
    source: Source
    chunk_stamp_ns: int
    sent_ns: int
    stamp_ns: int


@dataclass(frozen=True, eq=False)
class Moved:
    """One command that reached the arm, as the robot told it.

    Attributes:
        sent_ns: when the robot said so.
        executed: command after the robot's own limits, (J,) [rad].
        stamp_ns: of control's command, robot clock.
        held: whether it is none of control's, but of the robot's own hold.
    """

    sent_ns: int
    executed: Array
    stamp_ns: int
    held: bool


Step = Tick | Moved


@dataclass(frozen=True)
class Fault:
    """What was done to whom: `how` is stop, kill or cut; from `begun_ns` to `ended_ns`."""

    node: str
    how: str
    begun_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Verdict:
    """What a fault came to.

    Attributes:
        fault: what was done.
        held: whether the arm was held at all.
        due_ms: from the last valid action falling due to the hold on the wire [ms]; negative where it came earlier.
        fault_ms: from the fault to the hold on the wire [ms].
        still: the arm's commands came to rest and stayed.
        grip_kept: the gripper's command stayed, up to its own braking distance.
        old_chunks: commands from a chunk older than the fault, after it ended.
        jump: first new command against the last one before it, worst joint, as a share of what its speed allows.
    """

    fault: Fault
    held: bool
    due_ms: float = 0.0
    fault_ms: float = 0.0
    still: bool = True
    grip_kept: bool = True
    old_chunks: int = 0
    jump: float = 0.0

    def ok(self, limit_ms: float, open_loop_ms: float) -> bool:
        """Whether everything that the gate promises was kept.

        Args:
            limit_ms: hold after the last valid action falling due, at the latest.
            open_loop_ms: what an old chunk may still be played after the fault.
        """
        in_time = self.held and self.due_ms <= limit_ms and self.fault_ms <= open_loop_ms + limit_ms
        return in_time and self.still and self.grip_kept and not self.old_chunks and self.jump <= 1.0 + EXACT

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return {**vars(self), "fault": vars(self.fault)}


def judge(
    fault: Fault, ticks: Sequence[Tick], moves: Sequence[Moved], spans_ns: Mapping[int, int], spec: RobotSpec
) -> Verdict:
    """What a fault came to, by what was said from before it until the arm moved again.

    A period in which control sends nothing is the robot's own hold, and counts as one.

    Args:
        fault: what was done.
        ticks: control's steps.
        moves: what reached the arm, in order.
        spans_ns: chunk stamp to the time from it until its last valid action falls due [ns].
        spec: whose limits count.

    Raises:
        ValueError: nobody had said anything before the fault.
    """
    ticks = sorted(ticks, key=lambda t: t.sent_ns)
    if not any(t.sent_ns <= fault.begun_ns for t in ticks):
        raise ValueError(f"nothing was heard of control before the fault of {fault.node}")
    if fault.node == "control":
        return _control_fault(fault, ticks, moves, spec)
    return _upstream_fault(fault, ticks, moves, spans_ns, spec)


def _upstream_fault(
    fault: Fault, ticks: Sequence[Tick], moves: Sequence[Moved], spans_ns: Mapping[int, int], spec: RobotSpec
) -> Verdict:
    first = next((i for i, t in enumerate(ticks) if t.sent_ns > fault.begun_ns and t.source is Source.HOLD), 0)
    if not first:
        return Verdict(fault, held=False)
    last, hold = ticks[first - 1], ticks[first]
    due = last.chunk_stamp_ns + spans_ns.get(last.chunk_stamp_ns, 0)
    held = list(takewhile(lambda t: t.source is Source.HOLD, ticks[first:]))
    return Verdict(
        fault,
        True,
        (hold.sent_ns - due) / 1e6,
        (hold.sent_ns - fault.begun_ns) / 1e6,
        _still(held, spec),
        _grip_kept(ticks[max(first - 2, 0) : first], held, spec),
        _old_chunks(fault, ticks, moves, hold.sent_ns),
        _jump([*_sent(held)[-1:], *ticks[first + len(held) :][:1]], spec),
    )


def _control_fault(fault: Fault, ticks: Sequence[Tick], moves: Sequence[Moved], spec: RobotSpec) -> Verdict:
    first = next((i for i, m in enumerate(moves) if m.sent_ns > fault.begun_ns and m.held), 0)
    if not first:
        return Verdict(fault, held=False)
    last, hold = moves[first - 1], moves[first]
    held = list(takewhile(lambda m: m.held, moves[first:]))
    resumed = moves[first + len(held) :][:1]
    asked = [t for t in ticks for m in resumed if t.stamp_ns == m.stamp_ns]
    return Verdict(
        fault,
        True,
        (hold.sent_ns - last.stamp_ns) / 1e6,
        (hold.sent_ns - fault.begun_ns) / 1e6,
        _still(held, spec),
        _grip_kept(moves[max(first - 2, 0) : first], held, spec)
        and _grip_taken_over(held[-1], [*resumed, *asked], spec),
        _old_chunks(fault, ticks, moves, hold.sent_ns),
        _jump([held[-1], *resumed], spec),
    )


def _sent(ticks: Sequence[Step]) -> list[Step]:
    return [t for t in ticks if np.isfinite(t.executed).all()]


def _still(held: Sequence[Step], spec: RobotSpec) -> bool:
    settled = [t.executed for t in _sent(held) if t.sent_ns - held[0].sent_ns > SETTLE_NS]
    arm = np.array([not j.gripper for j in spec.joints])
    return not settled or float(np.abs(np.stack(settled) - settled[0])[:, arm].max()) <= EXACT


def _grip_kept(before: Sequence[Step], held: Sequence[Step], spec: RobotSpec) -> bool:
    """A gripper that rests keeps its command exactly; one that moves may brake: v T + v^2 / 2a."""
    speed = np.abs(before[-1].executed - before[0].executed) * spec.rate
    acceleration = np.array([j.acceleration for j in spec.joints])
    room = speed / spec.rate + speed**2 / (2 * acceleration) + EXACT
    return all(_grippers_within(before[-1], t, room, spec) for t in _sent(held))


def _grip_taken_over(before: Step, after: Sequence[Step], spec: RobotSpec) -> bool:
    """Whoever commands first after a silence starts at the gripper's last command: from rest it moves a T^2 at most."""
    room = np.array([j.acceleration for j in spec.joints]) / spec.rate**2 + EXACT
    return all(_grippers_within(before, t, room, spec) for t in after)


def _grippers_within(one: Step, other: Step, room: Array, spec: RobotSpec) -> bool:
    grippers = np.array([j.gripper for j in spec.joints])
    return bool((np.abs(other.executed - one.executed) <= room)[grippers].all())


def _old_chunks(fault: Fault, ticks: Sequence[Tick], moves: Sequence[Moved], held_ns: int) -> int:
    """What reached the arm although its chunk, or where none is known the command itself, is older than the fault."""
    chunks = {t.stamp_ns: t.chunk_stamp_ns for t in ticks if t.source is Source.POLICY}
    later = [m for m in moves if m.sent_ns > max(fault.ended_ns, held_ns) and not m.held]
    return sum(chunks.get(m.stamp_ns, m.stamp_ns) < fault.begun_ns for m in later)


def _jump(pair: Sequence[Step], spec: RobotSpec) -> float:
    if len(pair) < 2:
        return 0.0
    allowed = np.array([j.velocity for j in spec.joints]) / spec.rate
    return float((np.abs(pair[1].executed - pair[0].executed) / allowed).max())
