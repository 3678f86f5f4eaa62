"""What can go wrong, as a script: which fault, when, for how long, to whom."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vla_rl.hardware.twin.servo import Ailment, Servo

KINDS = {
    "drop": "bytes are lost, at `rate`",
    "flip": "one bit of a byte turns, at `rate`",
    "duplicate": "bytes come twice, at `rate`",
    "damage": "a third each of drop, flip and duplicate, at `rate`",
    "late": "answers come `value` ms late",
    "swap": "the first two answers of several change places, at `rate`",
    "gone": "the port is pulled; it comes back as another device",
    "silent": "servo does not answer and does not listen",
    "duplicate_id": "servo has the id `value`",
    "overheated": "servo says `value` deg C (90)",
    "undervoltage": "servo says `value` volts (3.5)",
    "overloaded": "servo says so and gives little torque",
    "overcurrent": "servo says so and gives no torque",
    "stuck": "servo's encoder stands still",
    "turn": "servo's position is `value` turns off (1)",
    "power": "servo loses its power for a moment and starts anew, torque off",
    "camera": "camera `camera` stops, or all do",
}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: see KINDS.
        at_s: when it starts, from the moment at which the script was given [s].
        for_s: how long it lasts [s].
        servo: id of whom it meets; 0 for all.
        rate: share of the bytes or answers.
        value: as the kind says; 0 for its default.
        camera: name of the camera; empty for all.
    """

    kind: str
    at_s: float = 0.0
    for_s: float = math.inf
    servo: int = 0
    rate: float = 0.01
    value: float = 0.0
    camera: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a kind that does not exist, or a rate that is none."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault '{self.kind}'; there are: {', '.join(KINDS)}")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"fault '{self.kind}': rate {self.rate} is no share between 0 and 1")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fault:
        """A fault of a script's line.

        Raises:
            ValueError: a key that does not exist, or no kind.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"unknown key '{unknown[0]}' of a fault; there are: {', '.join(known)}")
        if "kind" not in data:
            raise ValueError(f"a fault without 'kind'; there are: {', '.join(KINDS)}")
        return cls(**data)


def read_script(path: Path) -> list[Fault]:
    """The faults of a JSON file: a list of objects with the keys of `Fault`.

    Raises:
        ValueError: it is no such list.
    """
    try:
        script = json.loads(path.read_text())
        return [Fault.from_dict(line) for line in script]
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


class Noise:
    """Damages bytes at random.

    Args:
        seed: of what it damages.

    Attributes:
        rates: of drop, flip and duplicate.
        damaged: bytes so far.
    """

    def __init__(self, seed: int) -> None:
        self._rng, self.rates, self.damaged = random.Random(seed), (0.0, 0.0, 0.0), 0

    def __call__(self, data: bytes) -> bytes:
        """The bytes as they arrive."""
        return b"".join(map(self._byte, data)) if any(self.rates) else data

    def _byte(self, byte: int) -> bytes:
        drop, flip, duplicate = self.rates
        chance = self._rng.random()
        if chance >= drop + flip + duplicate:
            return bytes((byte,))
        self.damaged += 1
        if chance < drop:
            return b""
        return bytes((byte ^ 1 << self._rng.randrange(8),)) if chance < drop + flip else bytes((byte, byte))


class Faults:
    """The script under way, and what it makes of servos, bytes and answers.

    Args:
        servos: whom it meets.
        seed: of everything drawn at random.

    Attributes:
        heard, said: damage to what the host sends, and to what the servos send.
        gone, late_s, swap_rate: of the port and its answers.
        stopped: names of the cameras that stand still; "" for all.
    """

    def __init__(self, servos: Sequence[Servo], seed: int = 0) -> None:
        self._servos = {s.id: s for s in servos}
        self._plan: list[tuple[float, Fault]] = []
        self._active: tuple[Fault, ...] = ()
        self.heard, self.said, self._rng = Noise(seed), Noise(seed + 1), random.Random(seed + 2)
        self.gone, self.late_s, self.swap_rate = False, 0.0, 0.0
        self.stopped: frozenset[str] = frozenset()

    def begin(self, script: Iterable[Fault], now: float) -> None:
        """A new script from a time on [s]; what was before ends. An empty one mends everything.

        Raises:
            ValueError: a servo that is not on the bus.
        """
        script = list(script)
        for fault in script:
            if fault.servo and fault.servo not in self._servos:
                raise ValueError(f"fault '{fault.kind}': no servo {fault.servo}; there are: {list(self._servos)}")
        self._plan = [(now + f.at_s, f) for f in script]
        self.tick(now)

    @property
    def active(self) -> tuple[Fault, ...]:
        """What is wrong at the moment."""
        return self._active

    def tick(self, now: float) -> None:
        """Bring everything to what the script says for a time [s]."""
        active = tuple(f for start, f in self._plan if start <= now < start + f.for_s)
        if active != self._active:
            before, self._active = self._active, active
            self._apply(before)

    def _apply(self, before: tuple[Fault, ...]) -> None:
        for number, servo in self._servos.items():
            mine = [f for f in self._active if f.servo in (0, number)]
            servo.ailment = _ailment(mine)
            servo.memory["ID"] = next((int(f.value) for f in mine if f.kind == "duplicate_id"), number)
            if any(f.kind == "power" and f not in before for f in mine):
                servo.restart()
        of = {kind: [f for f in self._active if f.kind == kind] for kind in KINDS}
        third = sum(f.rate for f in of["damage"]) / 3
        drop, flip, duplicate = (third + sum(f.rate for f in of[k]) for k in ("drop", "flip", "duplicate"))
        self.heard.rates = self.said.rates = (drop, flip, duplicate)
        self.gone, self.late_s = bool(of["gone"]), sum(f.value for f in of["late"]) / 1000
        self.swap_rate = sum(f.rate for f in of["swap"])
        self.stopped = frozenset(f.camera for f in of["camera"])

    def order(self, answers: list[bytes]) -> list[bytes]:
        """Answers in the order in which they come."""
        if len(answers) > 1 and self._rng.random() < self.swap_rate:
            return [answers[1], answers[0], *answers[2:]]
        return answers


def _ailment(faults: Sequence[Fault]) -> Ailment:
    """What these faults make of one servo."""
    values = {f.kind: f.value for f in faults}
    return Ailment(
        temperature=(values["overheated"] or 90.0) if "overheated" in values else None,
        volts=(values["undervoltage"] or 3.5) if "undervoltage" in values else None,
        overload="overloaded" in values,
        overcurrent="overcurrent" in values,
        stuck="stuck" in values,
        turns=int(values["turn"] or 1) if "turn" in values else 0,
        silent="silent" in values,
    )
