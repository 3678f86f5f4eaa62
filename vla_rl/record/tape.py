"""Tape: a recorded episode read back, each topic as what it means, in the order in which it was recorded.

What a stranger published on our topics was recorded, too; what can not be read is counted and left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.observe.instruction import clean
from vla_rl.record import cdr
from vla_rl.record.frames import whole
from vla_rl.record.mcap_file import Entry, Messages, read
from vla_rl.types import Array, Mode, Source

MODES = tuple(Mode)
_CAMERA, _FEATURE, _STATE, _AGE, _PAST = "camera/", "feature/", "state/", "age/", "past/"


@dataclass(frozen=True, eq=False)
class Joints:
    """Measured or commanded joints (J,) [rad] of a stamp [ns], and when they arrived [ns]."""

    stamp_ns: int
    log_ns: int
    values: Array


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera's picture as its message was kept (see `record.frames`), captured at a stamp, arrived at `log_ns`.

    An episode's pictures do not fit into memory: each is read from the file when it is asked for.
    """

    stamp_ns: int
    log_ns: int
    kind: str
    fetch: Callable[[], bytes]

    @property
    def data(self) -> bytes:
        """The message."""
        return self.fetch()


@dataclass(frozen=True, eq=False)
class Drawn:
    """K chunks of `policy/candidates`, or the one of `steering/chunk`.

    Attributes:
        stamp_ns: of the observation.
        log_ns: when they arrived.
        chunks: (K, H, J) [rad].
        dt: between two actions [s].
        said: the message's `frame_id`: of a chosen chunk, which candidate it is.
    """

    stamp_ns: int
    log_ns: int
    chunks: Array
    dt: float
    said: str

    @property
    def candidate(self) -> int:
        """Which candidate a chosen chunk is, read as control reads it; -1 where its message says something else."""
        return int(self.said) if self.said.isascii() and self.said.isdigit() and len(self.said) < 6 else -1


@dataclass(frozen=True, eq=False)
class Seen:
    """What candidates were drawn from, by `policy/context`.

    Attributes:
        stamp_ns: of the newest observation.
        seed: of the draw.
        features: (D,), None where the policy gives none.
        joints: (J,) [rad], None where they are not said.
        ages: of each stream's sample at the stamp [s].
        past: the same of the observations before the newest, oldest first.
    """

    stamp_ns: int
    seed: int
    features: NDArray[np.float32] | None
    joints: Array | None
    ages: Mapping[str, float]
    past: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Values:
    """What the critic said of the first candidates: mean and spread (K,), the index chosen and the reason."""

    stamp_ns: int
    mean: Array
    spread: Array
    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Period:
    """One control period, by `control/step`.

    Attributes:
        stamp_ns: robot clock.
        log_ns: when it arrived.
        executed, proposed: (J,) [rad], None where nothing was sent or proposed.
        source, mode: who acted, and who might.
        chunk_stamp_ns, index, age_s, candidate: of the newest chunk that was due, -1 where none.
        why: limits that clamped, with commas between, or why the arm held.
        clamped: how many limits clamped.
        values: all numbers of the message.
    """

    stamp_ns: int
    log_ns: int
    executed: Array | None
    proposed: Array | None
    source: Source
    mode: Mode
    chunk_stamp_ns: int
    index: int
    age_s: float
    candidate: int
    why: str
    clamped: int
    values: Mapping[str, float]


@dataclass(eq=False)
class Tape:
    """An episode's topics, each in order of arrival, with the time of arrival [ns] where that matters."""

    about: dict[str, Any] = field(default_factory=dict)
    joints: list[Joints] = field(default_factory=list)
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    candidates: list[Drawn] = field(default_factory=list)
    seen: dict[int, Seen] = field(default_factory=dict)
    chosen: list[Drawn] = field(default_factory=list)
    values: dict[int, Values] = field(default_factory=dict)
    periods: list[Period] = field(default_factory=list)
    human: list[Joints] = field(default_factory=list)
    targets: list[Joints] = field(default_factory=list)
    instructions: list[tuple[int, str]] = field(default_factory=list)
    simulation: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, path: Path, names: Sequence[str]) -> Tape:
        """Read a complete episode.

        Args:
            path: its MCAP file.
            names: the robot's joints.

        Raises:
            DamagedEpisodeError: the file is not whole.
        """
        tape, messages = cls(), Messages(path)
        for entry in read(path):
            tape._take(entry, names, messages)
        return tape

    def instruction_at(self, log_ns: int) -> str:
        """What was to be done at a time of arrival [ns]; before the first word, that one; "" without any."""
        said = [text for when, text in self.instructions if when <= log_ns]
        return said[-1] if said else self.instructions[0][1] if self.instructions else ""

    def _take(self, entry: Entry, names: Sequence[str], messages: Messages) -> None:
        camera = entry.topic.split("/")[1] if entry.topic.startswith(_CAMERA) else ""
        if camera and entry.kind in (cdr.IMAGE, cdr.COMPRESSED):
            if not whole(entry.data, entry.kind):
                self.unread[entry.topic] += 1
                return
            frame = Frame(cdr.stamp_ns(entry.data), entry.log_ns, entry.kind, partial(messages, entry.place))
            self.frames.setdefault(camera, []).append(frame)
            return
        reader = READERS.get(entry.topic)
        if reader is None:
            return
        try:
            reader(self, entry, cdr.decode(entry.data, entry.kind), names)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError):
            self.unread[entry.topic] += 1


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _vector(message: Any) -> dict[str, float]:
    return dict(zip(message.name, message.position.tolist(), strict=True))


def _ordered(entry: Entry, message: Any, names: Sequence[str]) -> Joints:
    values = _vector(message)
    joints = np.array([values[name] for name in names])
    if not np.isfinite(joints).all():
        raise ValueError("a joint is not finite")
    return Joints(_stamp(message), entry.log_ns, joints)


def _chunks(entry: Entry, message: Any, names: Sequence[str]) -> Drawn:
    """Chunks back to back; a new one begins where `time_from_start` falls back."""
    order = [list(message.joint_names).index(name) for name in names]
    due = np.array([p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in message.points])
    horizon = int(np.argmax(due[1:] <= due[:-1])) + 1 if (due[1:] <= due[:-1]).any() else len(due)
    rows = np.array([point.positions for point in message.points], np.float64)[:, order]
    chunks = rows.reshape(-1, horizon, len(names))
    return Drawn(_stamp(message), entry.log_ns, chunks, float(due[0]) / 1e9, message.header.frame_id)


def _step(tape: Tape, entry: Entry, message: Any, names: Sequence[str]) -> None:
    v = _vector(message)
    executed, proposed = (_or_none([v[f"{what}/{name}"] for name in names]) for what in ("executed", "proposed"))
    tape.periods.append(
        Period(
            _stamp(message),
            entry.log_ns,
            executed,
            proposed,
            Source(round(v["source"])),
            MODES[round(v["mode"])],
            round(v["chunk_stamp_s"]) * 10**9 + round(v["chunk_stamp_ns"]) if v["chunk_stamp_s"] >= 0 else -1,
            round(v["index"]),
            v["age"],
            round(v["candidate"]),
            message.header.frame_id,
            round(v["clamped"]),
            v,
        )
    )


def _or_none(values: list[float]) -> Array | None:
    array = np.array(values)
    return array if np.isfinite(array).all() else None


def _seen(tape: Tape, entry: Entry, message: Any, names: Sequence[str]) -> None:
    v, stamp = _vector(message), _stamp(message)
    features = np.array([x for name, x in v.items() if name.startswith(_FEATURE)], np.float32)
    joints = [v[_STATE + name] for name in names if _STATE + name in v]
    ages = {name.removeprefix(_AGE): age for name, age in v.items() if name.startswith(_AGE)}
    past: dict[int, dict[str, float]] = {}
    for name in (name for name in v if name.startswith(_PAST)):
        before, _, stream = name.removeprefix(_PAST).partition("/")
        past.setdefault(int(before), {})[stream] = v[name]
    known = np.array(joints) if len(joints) == len(names) else None
    earlier = tuple(past[before] for before in sorted(past, reverse=True))
    seed = int(np.int64(round(v["seed"])))  # what no draw can have had is refused
    seen = Seen(stamp, seed, features if len(features) else None, known, ages, earlier)
    tape.seen.setdefault(stamp, seen)  # of another instruction for the same observation: steering refuses that set


def _values(tape: Tape, entry: Entry, message: Any, names: Sequence[str]) -> None:
    index, _, reason = message.header.frame_id.partition(" ")
    stamp = _stamp(message)
    tape.values[stamp] = Values(stamp, message.position.copy(), message.velocity.copy(), int(index), reason)


def _about(tape: Tape, entry: Entry, message: Any, names: Sequence[str]) -> None:
    """Merge: what becomes known later adds to what was known at the beginning, and changes nothing of it."""
    later, known = json.loads(message.data), tape.about
    nodes, graph = later.get("graph", {}), known.get("graph", {})
    graph |= {name: {**values, **graph.get(name, {})} for name, values in nodes.items()}
    weights = {**later.get("weights", {}), **{part: sha for part, sha in known.get("weights", {}).items() if sha}}
    tape.about = {**later, **known, "graph": graph, "weights": weights}


def _add(where: str) -> Callable[[Tape, Entry, Any, Sequence[str]], None]:
    return lambda tape, entry, message, names: getattr(tape, where).append(_ordered(entry, message, names))


READERS: dict[str, Callable[[Tape, Entry, Any, Sequence[str]], None]] = {
    "session": _about,
    "joint_states": _add("joints"),
    "joint_targets": _add("targets"),
    "human/command": _add("human"),
    "policy/candidates": lambda tape, e, message, names: tape.candidates.append(_chunks(e, message, names)),
    "steering/chunk": lambda tape, e, message, names: tape.chosen.append(_chunks(e, message, names)),
    "policy/context": _seen,
    "steering/values": _values,
    "control/step": _step,
    "instruction": lambda tape, e, message, names: tape.instructions.append((e.log_ns, clean(message.data))),
    "sim/status": lambda tape, e, message, names: tape.simulation.append((_stamp(message), _vector(message))),
}
