"""Our driver while bytes are damaged both ways: no crash, nobody gets another's goal, what is lost is counted."""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import numpy as np

from vla_rl.bench.on_twin.bench_arm import SPEC, Clock, a_twin, driven, swing
from vla_rl.hardware.twin.process import TwinProcess
from vla_rl.hardware.twin.table import TICK
from vla_rl.robot import Fault, Physical, Robot
from vla_rl.types import Array

SHARE = 0.01
SAME = 3.0  # ticks within which a goal is the one that was sent
WITHIN_S, NEAR = 0.1, 24  # of its command a goal has to be heard, among so many

Sent = list[tuple[float, Array]]


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Move the arm at 30 Hz for so long while 1% of all bytes are damaged.

    Returns:
        faulty_bytes: how many were damaged; crashes; wrong_id_writes: writes that a servo carried out and another was
        to have; altered_writes: that nobody was to have (a checksum of 8 bits lets some pass); commands, and of them
        commands_refused (by the arm, at once, with a reason); commands_lost: with a goal that its servo never heard;
        commands_counted: those that the driver says were lost, or may have been; commands_lost_uncounted; latched:
        times that the arm was held and had to be told to go on; damaged_periods_missed.
    """
    with a_twin(task="lift") as twin:
        with driven(twin, silence_s=0.2) as arm:
            assert isinstance(arm, Physical)
            twin.ask("faults", faults=[{"kind": "damage", "rate": SHARE}])
            sent, figures = _move(arm, seconds)
            counted = sum(arm.figures().get(name, 0.0) for name in ("lost", "unconfirmed"))
            twin.ask("faults", faults=[])
        counts, lost = twin.status()["follower"]["counts"], _unheard(twin, sent)
    return figures | {
        "faulty_bytes": counts["damaged"],
        "wrong_id_writes": counts["wrong_id_writes"],
        "altered_writes": counts["altered_writes"],
        "commands_lost": lost,
        "commands_counted": counted,
        "commands_lost_uncounted": max(0.0, lost - counted),
    }


def _move(arm: Any, seconds: float) -> tuple[Sent, dict[str, float]]:
    """Swing all joints; what was sent and when, and how often that failed."""
    start, clock, began = arm.sense().joints, Clock(), time.monotonic()
    sent: Sent = []
    figures = dict.fromkeys(("commands", "commands_refused", "latched", "crashes"), 0.0)
    while time.monotonic() - began < seconds:
        figures["commands"] += 1
        try:
            arm.sense()
            sent.append((time.monotonic(), arm.command(swing(start, time.monotonic() - began))))
        except Fault:
            figures["commands_refused"] += 1
            figures["latched"] += _gone_on(arm)
        except Exception:
            figures["crashes"] += 1
        clock.tick()
    return sent, figures | {"damaged_periods_missed": float(clock.missed)}


def _gone_on(arm: Robot) -> bool:
    """Tell an arm that is held to go on; whether it was."""
    if not (isinstance(arm, Physical) and arm.fault):
        return False
    with suppress(Fault):  # the next period tells it again
        arm.recover()
    return True


def _unheard(twin: TwinProcess, sent: Sent) -> float:
    """Commands of which a servo did not get its goal in time."""
    heard: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for event in twin.ask("events", kind="goal")["events"]:
        heard[event["servo"]].append((event["at"], event["value"]))
    calibration = list(twin.ask("calibration")["calibration"].values())
    middles = np.array([(c["range_min"] + c["range_max"]) / 2 for c in calibration])
    middle = (SPEC.low + SPEC.high) / 2
    ids = [own["id"] for own in calibration]

    def came(servo: int, at: float, ticks: float) -> bool:
        events = heard[servo]
        first = bisect.bisect_left(events, (at - WITHIN_S, 0))
        return any(abs(v - ticks) <= SAME for t, v in events[first : first + NEAR] if t < at + WITHIN_S)

    wanted = [(at, middles + (goals - middle) / TICK) for at, goals in sent]
    return float(sum(not all(came(i, at, t) for i, t in zip(ids, ticks, strict=True)) for at, ticks in wanted))
