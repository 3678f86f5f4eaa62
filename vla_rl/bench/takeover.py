"""Whether a human gets the arm at once, and gives it back safely: a gamepad's button on the real graph."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np

TOGGLES, HAND_BACKS = 1000, 1000
FASTEST_S, SLOWEST_S = 0.05, 0.15  # between two presses: 20 Hz and slower
PATIENCE_S, TRIES = 5.0, 10
CLOCK_NS = 10_000_000  # what the robot's clock may be behind
TOGGLE = 0


class Pad:
    """A gamepad in a bench's hand: says 60 times a second where its sticks are, and at once when a button goes.

    Args:
        client: publishes `joy`.
        seed: of the sticks' motion.
    """

    def __init__(self, client: Any, seed: int) -> None:
        from sensor_msgs.msg import Joy

        from vla_rl.ros import qos

        self._message, self._lock = Joy(axes=[0.0] * 8, buttons=[0] * 8), threading.Lock()
        self._joy = client.node.create_publisher(Joy, "joy", qos.OFFER)
        self._rng, self._stop = np.random.default_rng(seed), threading.Event()
        self._thread = threading.Thread(target=self._live, name="pad")
        self._thread.start()

    def _live(self) -> None:
        while not self._stop.wait(1 / 60):
            with self._lock:
                self._message.axes = [float(np.sin(time.monotonic() + i) * 0.5) for i in range(8)]
                self._joy.publish(self._message)

    def press(self) -> int:
        """Press and let go of the button that changes hands; returns when, system clock [ns]."""
        pressed = time.time_ns()
        for down in (1, 0):
            with self._lock:
                self._message.buttons = [down if i == TOGGLE else 0 for i in range(8)]
                self._joy.publish(self._message)
        return pressed

    def close(self) -> None:
        """Let go of it."""
        self._stop.set()
        self._thread.join()


def run(quick: bool = False) -> dict[str, Any]:
    """Change hands at random up to 20 times a second, then hand back and wait for the policy, on the real graph.

    Returns:
        `metrics`: toggles pressed, edges told, edges lost (pressed or counted, and not told), edge to the human's first
        command on the wire worst and p99 [ms] and how many of them were not the next command, periods with two
        owners, hand-backs after which the policy acted, those with an action for an observation from before, commands
        outside velocity, acceleration or jerk; from the button to the human's command p50 and p99 [ms].
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from vla_rl.execute.limits import Limits
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.options import correct_graph
    from vla_rl.ros.measure import takeover
    from vla_rl.ros.measure.stage import Stage
    from vla_rl.types import Source

    spec = arm_spec("so101")
    stage = Stage(correct_graph({"console": "false", "operator_device": "gamepad", "record": "false"}), spec)
    periods = takeover.listen(stage.watch, spec.names)
    pad = Pad(stage.watch, seed=0)
    try:
        stage.new_episode("lift", 5_300_000)
        stage.until(lambda: _acting(periods, Source.POLICY), PATIENCE_S * 6, "the policy acts")
        del periods[:-1]
        pressed = _toggle(stage, pad, periods, 60 if quick else TOGGLES)
        pressed += _hand_back(stage, pad, periods, 20 if quick else HAND_BACKS)
        stage.wait(1.0)
        verdict = takeover.judge(periods, Limits.from_spec(spec))
    finally:
        pad.close()
        stage.close()
    return {"metrics": _figures(pressed, periods, verdict)}


def _acting(periods: Any, *sources: Any) -> bool:
    return bool(periods) and periods[-1].source in sources


def _toggle(stage: Any, pad: Pad, periods: Any, count: int) -> list[int]:
    """Change hands so often, at random times, and once more where a human is left with the arm; returns when."""
    from vla_rl.types import Source

    rng, pressed = np.random.default_rng(1), []
    for _ in range(count):
        pressed.append(pad.press())
        stage.wait(rng.uniform(FASTEST_S, SLOWEST_S))
    stage.wait(0.5)
    return pressed + (_press_until(stage, pad, periods, Source.POLICY, Source.RAMP) if count % 2 else [])


def _hand_back(stage: Any, pad: Pad, periods: Any, count: int) -> list[int]:
    """Take over, drive a little, hand back and wait for the policy, so often; returns when hands changed."""
    from vla_rl.types import Source

    rng, pressed = np.random.default_rng(2), []
    for _ in range(count):
        stage.wait(rng.uniform(0.0, 0.2))
        pressed += _press_until(stage, pad, periods, Source.HUMAN)
        stage.wait(rng.uniform(0.0, 0.2))
        pressed += _press_until(stage, pad, periods, Source.POLICY, Source.RAMP)
    return pressed


def _press_until(stage: Any, pad: Pad, periods: Any, *sources: Any) -> list[int]:
    """Press until somebody of these acts: where a machine stands still for long, a gamepad counts as lost meanwhile."""
    pressed = [pad.press()]
    while True:
        try:
            stage.until(lambda: _acting(periods, *sources), PATIENCE_S, "hands change")
            return pressed
        except TimeoutError:
            if len(pressed) > TRIES:
                raise
            pressed.append(pad.press())


def _causes(pressed: list[int], edges: list[Any]) -> dict[int, int]:
    """When the button was pressed that made an edge, by its number: in order, or the last time where one was lost.

    An edge has the robot's clock, which may be some milliseconds behind the one that the presses have.
    """
    edges = sorted(edges, key=lambda edge: edge.number)
    if len(edges) == len(pressed):
        return {edge.number: at for edge, at in zip(edges, pressed, strict=True)}
    before = {edge.number: [at for at in pressed if at <= edge.stamp_ns + CLOCK_NS] for edge in edges}
    return {number: found[-1] for number, found in before.items() if found}


def _figures(pressed: list[int], periods: Any, verdict: Any) -> dict[str, float]:
    """The metrics."""
    from vla_rl.types import Mode, Source

    causes = _causes(pressed, [edge for p in periods for edge in p.edges])
    taken = [p for before, p in pairwise(periods) if p.source is Source.HUMAN and before.source is not Source.HUMAN]
    edges = {p.sent_ns: [e for e in p.edges if e.mode is Mode.CORRECTING] for p in taken}
    whole = [(sent - causes[e[-1].number]) * 1e-6 for sent, e in edges.items() if e and e[-1].number in causes]
    to_human = verdict.takeovers or (float("nan"),)
    return {
        "toggles": len(pressed),
        "edges": verdict.edges,
        "edges_lost": max(len(pressed) - verdict.edges, 0) + verdict.unheard,
        "takeovers": len(verdict.takeovers),
        "edge_to_command_max_ms": max(to_human),
        "edge_to_command_p99_ms": float(np.percentile(to_human, 99)),
        "not_the_next_command": verdict.slow,
        "two_owners": verdict.two_owners,
        "hand_backs": verdict.hand_backs,
        "stale_after_hand_back": verdict.stale,
        "outside_limits": verdict.too_fast,
        "button_to_command_p50_ms": float(np.percentile(whole or [float("nan")], 50)),
        "button_to_command_p99_ms": float(np.percentile(whole or [float("nan")], 99)),
    }
