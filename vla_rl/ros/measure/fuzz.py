"""Fuzz: malformed messages on every topic that a node of the graph subscribes to, while the arm is under way.

  python -m vla_rl.ros.measure.fuzz --count 10000 --json fuzz.json

Wrong names, wrong sizes, nothing, NaN, infinities, stamps of any age, texts with control characters, 10 MB. What must
hold: no process ends, memory stays flat, and every command that reaches the robot is finite and within its limits.

Flat: whatever the first `count` messages of every topic leave behind, another `count` of each adds nothing to it, but
for FLAT_MB. Resident memory counts, shared segments of DDS included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_rl.robot import arm_spec
from vla_rl.ros import qos
from vla_rl.ros.bringup.options import sim_graph
from vla_rl.ros.measure.stage import Stage
from vla_rl.ros.measure.stalls import Tick
from vla_rl.types import RobotSpec

HUGE = 10_000_000  # bytes
BURST = 20  # messages between two breaths, 10 ms each
JUDGED = 0.5  # share of control's periods that must have been heard: what nobody hears violates nothing
FLAT_MB = 5.0  # less than one message of HUGE that is kept
_VALUES = (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, 1e9, -0.0)
_TEXTS = ("", "\x00", "\x1b[2J", "a" * 300, "../../etc/passwd", "{{7*7}}", "%n%s", "shoulder_pan", "é\u202e")


def joint_state(rng: np.random.Generator, names: Sequence[str]) -> JointState:
    """A JointState that is wrong in names, sizes or values."""
    wrong = rng.integers(4)
    given = [*names] if wrong in (1, 2) else [str(rng.choice(_TEXTS)) for _ in range(rng.integers(12))]
    count = len(given) if wrong == 1 else int(rng.integers(1000)) if wrong else 0
    return JointState(
        header=_header(rng), name=given, position=_numbers(rng, count), velocity=_numbers(rng, count // 2)
    )


def trajectory(rng: np.random.Generator, names: Sequence[str]) -> JointTrajectory:
    """A JointTrajectory that is wrong in names, sizes, times or values."""
    wrong = rng.integers(4)
    given = [*names] if wrong else [str(rng.choice(_TEXTS)) for _ in range(rng.integers(12))]
    sizes = [
        len(names) if wrong in (1, 3) else int(rng.integers(20))
        for _ in range(rng.integers(1 if wrong == 3 else 0, 40))
    ]
    times = [Duration(sec=int(rng.integers(-(2**31), 2**31)), nanosec=int(rng.integers(2**32))) for _ in sizes]
    if wrong == 3:
        times = [Duration(nanosec=(i + 1) * 33_333_333 % 10**9) for i in range(len(sizes))]
    rows = [
        JointTrajectoryPoint(positions=_numbers(rng, n), time_from_start=t) for n, t in zip(sizes, times, strict=True)
    ]
    return JointTrajectory(header=_header(rng), joint_names=given, points=rows)


def image(rng: np.random.Generator, _: Sequence[str]) -> Image:
    """An Image whose sizes, encoding and data do not belong together."""
    height, width, step = (int(n) for n in rng.integers(2**32, size=3))
    encoding = str(rng.choice(["rgb8", "bgr8", "32FC1", *_TEXTS]))
    data = array("B", rng.bytes(int(rng.integers(1000))))
    return Image(header=_header(rng), height=height, width=width, step=step, encoding=encoding, data=data)


def compressed(rng: np.random.Generator, _: Sequence[str]) -> CompressedImage:
    """A CompressedImage that is none: noise behind a real header, for one."""
    head = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff"][rng.integers(3)]
    return CompressedImage(
        header=_header(rng), format=str(rng.choice(_TEXTS)), data=head + rng.bytes(int(rng.integers(1000)))
    )


def text(rng: np.random.Generator, _: Sequence[str]) -> String:
    """A text that nobody should trust."""
    return String(data=str(rng.choice(_TEXTS)) * int(rng.integers(1, 100)))


def clock(rng: np.random.Generator, _: Sequence[str]) -> Clock:
    """Any time."""
    return Clock(clock=_time(rng))


MAKERS: Mapping[str, tuple[type, Callable[[np.random.Generator, Sequence[str]], Any]]] = {
    "sensor_msgs/msg/JointState": (JointState, joint_state),
    "trajectory_msgs/msg/JointTrajectory": (JointTrajectory, trajectory),
    "sensor_msgs/msg/Image": (Image, image),
    "sensor_msgs/msg/CompressedImage": (CompressedImage, compressed),
    "std_msgs/msg/String": (String, text),
    "rosgraph_msgs/msg/Clock": (Clock, clock),
}


def huge(kind: type) -> Any:
    """A message of ten megabytes."""
    if kind is Image:
        return Image(height=1, width=HUGE, step=HUGE, encoding="rgb8", data=array("B", bytes(HUGE)))
    if kind is CompressedImage:
        return CompressedImage(format="jpeg", data=b"\xff\xd8" + bytes(HUGE))
    if kind is JointTrajectory:
        return JointTrajectory(joint_names=["a" * HUGE])
    return (
        JointState(name=["a" * HUGE]) if kind is JointState else String(data="a" * HUGE) if kind is String else kind()
    )


def _header(rng: np.random.Generator) -> Header:
    return Header(stamp=_time(rng), frame_id=str(rng.choice(_TEXTS)))


def _time(rng: np.random.Generator) -> Time:
    return Time(
        sec=int(rng.choice([0, -1, 2**31 - 1, -(2**31), int(rng.integers(2**31))])), nanosec=int(rng.integers(2**32))
    )


def _numbers(rng: np.random.Generator, count: int) -> array:
    return array("d", np.where(rng.random(count) < 0.5, rng.choice(_VALUES, count), rng.normal(0, 3, count)).tolist())


def violations(ticks: Sequence[Tick], spec: RobotSpec) -> int:
    """Commands of control that are not finite, outside the limits, or faster than a joint may be.

    What control says that it sent counts: on `joint_commands` itself the fuzzer speaks too.
    """
    commands = [t for t in ticks if not np.isnan(t.executed).all()]
    if not commands:
        return 0
    rows = np.stack([c.executed for c in commands])
    wrong = (
        ~np.isfinite(rows).all(axis=1) | (rows < spec.low - 1e-6).any(axis=1) | (rows > spec.high + 1e-6).any(axis=1)
    )
    seconds = np.maximum(np.diff([c.received_ns for c in commands]) / 1e9, 1.0 / spec.rate)
    speeds = np.abs(np.diff(rows, axis=0)) / seconds[:, None]
    wrong[1:] |= (speeds > 1.01 * np.array([j.velocity for j in spec.joints])).any(axis=1)
    return int(wrong.sum())


class Fuzzer:
    """Malformed messages for a graph that is up."""

    def __init__(self, stage: Stage, seed: int = 0) -> None:
        self._stage, self._node = stage, stage.watch.node
        self._rng = np.random.default_rng(seed)
        self._names = stage.watch.spec.names

    def topics(self) -> dict[str, str]:
        """Topic to type of everything that the graph's nodes subscribe to."""
        graph, found = self._stage.supervisor.graph, dict[str, str]()
        for node in graph.nodes:
            subscribed = self._node.get_subscriber_names_and_types_by_node(node.name, f"/{graph.namespace}")
            found |= {name: kinds[0] for name, kinds in subscribed if kinds[0] in MAKERS}
        return dict(sorted(found.items()))

    def flood(self, topic: str, kind_name: str, count: int) -> None:
        """Send that many malformed messages to a topic, one in a thousand of them of 10 MB."""
        kind, make = MAKERS[kind_name]
        publisher = self._node.create_publisher(kind, topic, qos.OFFER)
        large = huge(kind)
        self._stage.wait(0.3)
        for i in range(count):
            publisher.publish(large if i % 1000 == 7 else make(self._rng, self._names))
            if i % BURST == 0:
                self._stage.poll()
        self._stage.wait(0.3)
        self._node.destroy_publisher(publisher)


def memory_mb(pid: int) -> float:
    """Resident memory of a process [MB]."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run(count: int, logs: str = "") -> dict[str, Any]:
    """Fuzz every subscribed topic of a graph of its own, twice.

    Args:
        count: messages a topic and round.
        logs: folder for the nodes' logs; "" keeps none.

    Returns:
        topics, messages, control periods heard meanwhile and due meanwhile, violations, and by how much each
        process grew in the first round and in the second [MB].

    Raises:
        RuntimeError: a process ended; the message says which.
    """
    stage = Stage(sim_graph({"apart": "true"}), arm_spec("so101"), logs, restarts=0)
    try:
        stage.new_episode("lift", 3_000_000)
        fuzzer, resident = Fuzzer(stage), [_resident(stage)]
        topics, begun = fuzzer.topics(), time.monotonic()
        for _ in range(2):
            for topic, kind in topics.items():
                fuzzer.flood(topic, kind, count)
            resident.append(_resident(stage))
        first, second = ({name: now[name] - was[name] for name in now} for was, now in pairwise(resident))
        ticks, spec = stage.watch.heard.ticks, stage.watch.spec
        return {
            "topics": list(topics),
            "messages": 2 * len(topics) * count,
            "periods": len(ticks),
            "periods_due": round((time.monotonic() - begun) * spec.rate),
            "violations": violations(ticks, spec),
            "first_growth_mb": first,
            "growth_mb": second,
        }
    finally:
        stage.close()


def faults(found: Mapping[str, Any]) -> list[str]:
    """What did not hold, by what `run` found."""
    wrong = [f"{found['violations']} commands outside the limits"] if found["violations"] else []
    if found["periods"] < JUDGED * found["periods_due"]:
        wrong.append(f"only {found['periods']} of {found['periods_due']} control periods were heard")
    grown = {name: mb for name, mb in found["growth_mb"].items() if mb > FLAT_MB}
    return wrong + [f"{name} grew by {mb:.1f} MB in the second round" for name, mb in grown.items()]


def _resident(stage: Stage) -> dict[str, float]:
    """Resident memory of every process of a graph [MB]."""
    return {p.name: memory_mb(stage.supervisor.pid(p.name)) for p in stage.supervisor.graph.processes}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("vla_rl.ros.measure.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="messages a topic, sent twice (default 10000)")
    parser.add_argument("--json", default="", metavar="FILE")
    parser.add_argument("--logs", default="", metavar="DIR")
    args = parser.parse_args()
    found = run(args.count, args.logs)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    wrong = faults(found)
    for fault in wrong:
        print(f"fuzz: {fault}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
