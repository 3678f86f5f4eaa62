"""Stalls: what a listener saw of a fault, and whether the arm was held in time, kept its grip and forgot old chunks.

::

    policy stopped                                                policy goes on
          |                                                             |
    ------x--- actions of the last chunk ---|.......|#### hold #########|####|--- actions of a newer chunk ---
                                            |<----->|                   |<-->|
                              last action due  late                     nothing older than x may be executed

All times are the host's system clock [ns]; in real time that is the robot's clock too. A policy, steering or network
fault is judged from control's own steps, a control fault from the robot's watchdog, because control is then silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_rl.types import Array, RobotSpec, Source

SETTLE_NS = 300_000_000  # a brake from full speed at the SO-101's limits takes about 0.2 s
EXACT = 1e-6  # [rad]: float32 on the way


@dataclass(frozen=True, eq=False)
class Tick:
    """One control period as it arrived.

    Attributes:
        received_ns: arrival at the listener's middleware.
        executed: command, (J,) [rad]; NaN where nothing was sent and the robot holds by itself.
        source: who acted.
        chunk_stamp_ns: stamp of the chunk in use, -1 where none.
    """

    received_ns: int
    executed: Array
    source: Source
    chunk_stamp_ns: int


@dataclass(frozen=True)
class Guard:
    """The robot's own watchdog at one instant: when it was seen, and since when it holds (0 while it does not)."""

    received_ns: int
    hold_ns: int


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
    fault: Fault, ticks: Sequence[Tick], guards: Sequence[Guard], spans_ns: Mapping[int, int], spec: RobotSpec
) -> Verdict:
    """What a fault came to, by what a listener saw from before it until the arm moved again.

    A period in which control sends nothing is the robot's own hold, and counts as one.

    Args:
        fault: what was done.
        ticks: control's steps, in order.
        guards: what the robot said of its own watchdog, in order.
        spans_ns: chunk stamp to the time from it until its last valid action falls due [ns].
        spec: whose limits count.
    """
    before = [t for t in ticks if t.received_ns <= fault.begun_ns]
    if not before:
        raise ValueError(f"nothing was heard of control before the fault of {fault.node}")
    if fault.node == "control":
        return _control_fault(fault, before[-1], ticks, guards, spec)
    return _upstream_fault(fault, ticks, spans_ns, spec)


def _upstream_fault(fault: Fault, ticks: Sequence[Tick], spans_ns: Mapping[int, int], spec: RobotSpec) -> Verdict:
    after = [i for i, t in enumerate(ticks) if t.received_ns > fault.begun_ns and t.source is Source.HOLD]
    if not after or after[0] == 0:
        return Verdict(fault, held=False)
    first = after[0]
    last, hold = ticks[first - 1], ticks[first]
    due = last.chunk_stamp_ns + spans_ns.get(last.chunk_stamp_ns, 0)
    held = _while_held(ticks[first:])
    return Verdict(
        fault,
        True,
        (hold.received_ns - due) / 1e6,
        (hold.received_ns - fault.begun_ns) / 1e6,
        _still(held, spec),
        _grip_kept(ticks[max(first - 2, 0) : first], held, spec),
        _old_chunks(ticks, fault, hold.received_ns),
        _jump([*_sent(held)[-1:], *ticks[first + len(held) :][:1]], spec),
    )


def _control_fault(
    fault: Fault, last: Tick, ticks: Sequence[Tick], guards: Sequence[Guard], spec: RobotSpec
) -> Verdict:
    trips = [g.hold_ns for g in guards if g.hold_ns > last.received_ns]
    if not trips:
        return Verdict(fault, held=False)
    resumed = _sent([t for t in ticks if t.received_ns > fault.ended_ns])
    return Verdict(
        fault,
        True,
        (trips[0] - last.received_ns) / 1e6,
        (trips[0] - fault.begun_ns) / 1e6,
        grip_kept=_grip_taken_over(last, resumed[:1], spec),
        old_chunks=_old_chunks(ticks, fault, trips[0]),
    )


def _sent(ticks: Sequence[Tick]) -> list[Tick]:
    return [t for t in ticks if np.isfinite(t.executed).all()]


def _while_held(ticks: Sequence[Tick]) -> list[Tick]:
    held: list[Tick] = []
    for tick in ticks:
        if tick.source is not Source.HOLD:
            break
        held.append(tick)
    return held


def _still(held: Sequence[Tick], spec: RobotSpec) -> bool:
    settled = [t.executed for t in _sent(held) if t.received_ns - held[0].received_ns > SETTLE_NS]
    arm = np.array([not j.gripper for j in spec.joints])
    return not settled or float(np.abs(np.stack(settled) - settled[0])[:, arm].max()) <= EXACT


def _grip_kept(before: Sequence[Tick], held: Sequence[Tick], spec: RobotSpec) -> bool:
    """A gripper that rests keeps its command exactly; one that moves may brake: v T + v^2 / 2a."""
    speed = np.abs(before[-1].executed - before[0].executed) * spec.rate
    acceleration = np.array([j.acceleration for j in spec.joints])
    room = speed / spec.rate + speed**2 / (2 * acceleration) + EXACT
    return all(_grippers_within(before[-1], t, room, spec) for t in _sent(held))


def _grip_taken_over(before: Tick, after: Sequence[Tick], spec: RobotSpec) -> bool:
    """Whoever commands first after a silence starts at the gripper's last command: from rest it moves a T^2 at most."""
    room = np.array([j.acceleration for j in spec.joints]) / spec.rate**2 + EXACT
    return all(_grippers_within(before, t, room, spec) for t in after)


def _grippers_within(one: Tick, other: Tick, room: Array, spec: RobotSpec) -> bool:
    grippers = np.array([j.gripper for j in spec.joints])
    return bool((np.abs(other.executed - one.executed) <= room)[grippers].all())


def _old_chunks(ticks: Sequence[Tick], fault: Fault, held_ns: int) -> int:
    later = [t for t in ticks if t.received_ns > max(fault.ended_ns, held_ns) and t.source is Source.POLICY]
    return sum(t.chunk_stamp_ns < fault.begun_ns for t in later)


def _jump(pair: Sequence[Tick], spec: RobotSpec) -> float:
    if len(pair) < 2:
        return 0.0
    allowed = np.array([j.velocity for j in spec.joints]) / spec.rate
    return float((np.abs(pair[1].executed - pair[0].executed) / allowed).max())
