"""Takeovers as a listener saw them: how soon the human's command followed, and what came first after a hand-back.

::

    AUTONOMOUS          | edge          CORRECTING            | edge         AUTONOMOUS
    ---policy---policy--x--human---human---human---human------x--hold--hold--ramp---ramp---policy---
                        |<-->|                                |<------------>|
                     edge to command                          the ramp's chunk answers what was seen after the edge

An edge is stamped by control when it is asked, by the robot's clock, which in real time is the host's; a command is
stamped by the middleware of its sender.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from vla_rl.execute.arbiter import Edge
from vla_rl.execute.limits import Limits
from vla_rl.ros import messages
from vla_rl.ros.measure.client import Client
from vla_rl.types import Array, Mode, Source

ALLOWED = {
    Mode.AUTONOMOUS: {Source.POLICY, Source.RAMP, Source.HOLD},
    Mode.CORRECTING: {Source.HUMAN, Source.RAMP, Source.HOLD},
    Mode.PAUSED: {Source.HOLD},
    Mode.STOPPED: {Source.HOLD},
}
_EXACT = 1e-6  # relative: rounding in third differences
_PATIENT = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)  # a listener that stands still misses nothing


@dataclass(frozen=True, eq=False)
class Period:
    """One control period as control told it.

    Attributes:
        sent_ns: when control said so, system clock.
        mode, source: who may act, who acted.
        chunk_ns: stamp of the newest chunk that was due, -1 where none.
        executed: command, (J,) [rad]; NaN where nothing was sent.
        edges: changes of mode since the period before.
        count: of all changes.
    """

    sent_ns: int
    mode: Mode
    source: Source
    chunk_ns: int
    executed: Array
    edges: tuple[Edge, ...]
    count: int


def listen(client: Client, names: Sequence[str]) -> list[Period]:
    """Every period that a client hears from now on, in a list that grows."""
    periods: list[Period] = []

    def heard(message: JointState, _: int, sent_ns: int) -> None:
        periods.append(period(message, names, sent_ns))

    client.listen(JointState, "control/step", heard, _PATIENT)
    return periods


def period(message: JointState, names: Sequence[str], sent_ns: int) -> Period:
    """A `control/step` as a period."""
    values, stamp = messages.vector_of(message), messages.stamp_ns(message.header.stamp)
    numbers = [int(name.split("/")[1]) for name in values if name.startswith("edge/") and name.endswith("/mode")]
    edges = tuple(
        Edge(n, messages.MODES[round(values[f"edge/{n}/mode"])], stamp - round(values[f"edge/{n}/age"] * 1e9))
        for n in numbers
    )
    chunk = round(values["chunk_stamp_s"]) * messages.SECOND + round(values["chunk_stamp_ns"])
    executed = np.array([values[f"executed/{name}"] for name in names])
    mode, source = messages.MODES[round(values["mode"])], Source(round(values["source"]))
    return Period(sent_ns, mode, source, chunk, executed, edges, round(values["edges"]))


@dataclass(frozen=True)
class Verdict:
    """What a run of periods shows.

    Attributes:
        edges: changes of mode that were told.
        unheard: changes that were counted but not told.
        takeovers: ms from the edge to the human's first command, of those that lasted to the next period.
        slow: takeovers whose next command was not the human's.
        two_owners: periods in which somebody acted whom the mode does not allow.
        hand_backs: those after which the policy acted.
        stale: of these, those with an action for an observation from before the hand-back.
        too_fast: commands outside the limits of velocity, acceleration or jerk.
    """

    edges: int
    unheard: int
    takeovers: tuple[float, ...]
    slow: int
    two_owners: int
    hand_backs: int
    stale: int
    too_fast: int


def judge(periods: Sequence[Period], limits: Limits) -> Verdict:
    """What a run of periods shows."""
    edges = [edge for p in periods for edge in p.edges]
    first = periods[0].count - len(periods[0].edges) if periods else 0
    met = [(p, p.edges[-1]) for p in periods if p.edges and p.edges[-1].mode is Mode.CORRECTING]
    backs = list(_hand_backs(periods))
    return Verdict(
        edges=len(edges),
        unheard=(periods[-1].count - first if periods else 0) - len({edge.number for edge in edges}),
        takeovers=tuple((p.sent_ns - edge.stamp_ns) * 1e-6 for p, edge in met if p.source is Source.HUMAN),
        slow=sum(p.source is not Source.HUMAN for p, _ in met),
        two_owners=sum(p.source not in ALLOWED[p.mode] for p in periods),
        hand_backs=len(backs),
        stale=sum(backs),
        too_fast=_too_fast(periods, limits),
    )


def _hand_backs(periods: Sequence[Period]) -> Iterator[bool]:
    """For each hand-back after which the policy acted, whether an action of it was stale."""
    since: int | None = None
    acted: list[bool] = []
    for p in periods:
        for edge in p.edges:
            if acted:
                yield any(acted)
            since, acted = (edge.stamp_ns if edge.mode is Mode.AUTONOMOUS else None), []
        if since is not None and p.source in (Source.POLICY, Source.RAMP):
            acted.append(p.chunk_ns <= since)
    if acted:
        yield any(acted)


def _too_fast(periods: Sequence[Period], limits: Limits) -> int:
    """Commands that break a limit, judged within stretches in which something was sent each period."""
    found = 0
    for sent, stretch in groupby(periods, key=lambda p: bool(np.isfinite(p.executed).all())):
        path = np.stack([p.executed for p in stretch]) if sent else np.zeros((0, len(limits.names)))
        for order, name in enumerate(("velocity", "acceleration", "jerk"), 1):
            rates = np.diff(path, order, axis=0) / limits.dt**order if len(path) > order else np.zeros((0, 1))
            found += int((np.abs(rates) > getattr(limits, name) * (1 + _EXACT)).any(-1).sum()) if len(rates) else 0
    return found
