"""Whether commands come on time: the whole graph at 30 Hz with two busy loops beside it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from vla_rl.robot import arm_spec
from vla_rl.types import Source

MINUTES = 10.0
HOGS = 2


def run(quick: bool = False) -> dict[str, Any]:
    """Run the graph under load.

    Returns:
        `metrics`: commands, periods skipped (gaps of half as much again as a period), lateness of sending against an
        even schedule p50, p99 and worst [ms] (by the middleware's stamps), the largest step that the system's clock,
        which makes them, took in a second against the monotonic one [ms], false holds, periods without anything to
        send, and by control itself (monotonic) its overruns, how late its periods began, and were sent [ms].
    """
    from vla_rl.ros.bringup.options import sim_graph
    from vla_rl.ros.measure.pace import lateness_ms
    from vla_rl.ros.measure.stage import Stage

    spec = arm_spec("so101")
    seconds = 60.0 * MINUTES / (20 if quick else 1)
    stage = Stage(sim_graph({"task": "stack"}), spec)
    try:
        with busy_loops(HOGS):
            stage.new_episode("stack", 2_500_000)
            stage.until(lambda: _acting(stage.watch.heard.ticks), 30.0, "the policy acts")
            stage.watch.clear()
            steps = _clock_steps_ms(stage, seconds)
            heard = stage.watch.heard
        sent = np.array([c.sent_ns for c in heard.commands])
        late = lateness_ms(sent, 1e9 / spec.rate)
        holds = sum(a.source is Source.POLICY and b.source is Source.HOLD for a, b in pairwise(heard.ticks))
        return {
            "metrics": {
                "seconds": seconds,
                "busy_loops": HOGS,
                "commands": len(sent),
                "skipped": int((np.diff(sent) > 1.5e9 / spec.rate).sum()),
                "late_p50_ms": float(np.percentile(late, 50)),
                "late_p99_ms": float(np.percentile(late, 99)),
                "late_max_ms": float(late.max()),
                "clock_step_max_ms": max(steps),
                "false_holds": holds,
                "unsent": sum(bool(np.isnan(t.executed).any()) for t in heard.ticks),
                "overruns": stage.watch.figure("control", "overruns"),
                "loop_late_p99_ms": stage.watch.figure("control", "late_p99_ms"),
                "sent_p99_ms": stage.watch.figure("control", "done_p99_ms"),
                "sent_max_ms": stage.watch.figure("control", "done_max_ms"),
            }
        }
    finally:
        stage.close()


def _clock_steps_ms(stage: Any, seconds: float) -> list[float]:
    """Wait so long, and see by how much each second the system's clock went otherwise than the monotonic one [ms]."""
    offsets = [time.time_ns() - time.monotonic_ns()]
    for _ in range(max(round(seconds), 1)):
        stage.wait(1.0)
        offsets.append(time.time_ns() - time.monotonic_ns())
    return [abs(b - a) / 1e6 for a, b in pairwise(offsets)]


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def _spin() -> None:
    while True:
        pass


def _acting(ticks: Any) -> bool:
    return len(ticks) >= 30 and all(t.source is Source.POLICY for t in ticks[-30:])
