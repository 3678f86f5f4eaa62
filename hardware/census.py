"""Census: which servos are on a Feetech bus. Why one is not, or two are, in one line."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vla_rl.hardware.twin.protocol import Decoder, Instruction, Packet

PATIENCE_S, TRIES = 0.02, 3
OVERLOADED = 32
FAULTS = {1: "under- or overvoltage", 2: "with a sensor error", 4: "overheated", 8: "overcurrent",
          OVERLOADED: "overloaded"}  # fmt: skip
_QUIET_S = 3e-3  # after an answer: time for a second servo's


@dataclass(frozen=True)
class Answer:
    """What came back from an id: from how many servos (2 for more, which may destroy each other's), and its `error`."""

    servos: int
    error: int = 0


def check(bus: Any, forgiven: Container[str] = ()) -> None:
    """Raise ValueError where the servos of the bus are not all there, once each, well, and of the right model.

    Args:
        bus: LeRobot's, open.
        forgiven: motors that may be overloaded: grippers that squeeze something.
    """
    if not feetech(bus):
        missing = [motor for motor in bus.motors if bus.ping(motor, num_retry=TRIES) is None]
        if missing:
            raise ValueError(f"no answer from {', '.join(missing)} on {bus.port}: is the arm powered?")
        return
    ids = {motor.id: name for name, motor in bus.motors.items()}
    answers = {number: ping(bus, number) for number in ids}
    missing = [n for n, answer in answers.items() if answer.servos == 0]
    if len(missing) == len(ids):
        reason = _elsewhere(bus, ids, missing) or "is the arm's power on, and is this its port?"
        raise ValueError(f"no servo answers on {bus.port}: {reason}")
    double = [n for n, a in answers.items() if a.servos > 1 or (missing and a.servos and _together(bus, n, ids[n]))]
    if double:
        none = f", and none {_listed(missing, ids)}" if missing else ""
        raise ValueError(f"several servos on {bus.port} have the id {_listed(double, ids)}{none}: "
                         "give each its own with lerobot-setup-motors")  # fmt: skip
    if missing:
        reason = _elsewhere(bus, ids, missing) or "check its cable and the one before it"
        raise ValueError(f"no answer from servo {_listed(missing, ids)} on {bus.port}: {reason}")
    ill = [wrong(n, ids[n], answer.error, ids[n] in forgiven) for n, answer in answers.items()]
    if any(ill):
        raise ValueError(f"{'; '.join(filter(None, ill))}: power the arm off and on again")
    _check_models(bus)


def wrong(number: int, name: str, bits: int, forgiven: bool = False) -> str:
    """What a servo says of itself, "" where all is well or it is an overload that is forgiven."""
    if not bits or (forgiven and bits == OVERLOADED):
        return ""
    words = [text for bit, text in FAULTS.items() if bits & bit] or [f"in status {bits}"]
    return f"servo {number} ({name}) is {' and '.join(words)}"


def feetech(bus: Any) -> bool:
    """Whether a bus of LeRobot's speaks the protocol of Feetech's STS and SMS servos."""
    from lerobot.motors.feetech import FeetechMotorsBus

    return isinstance(bus, FeetechMotorsBus) and bus.protocol_version == 0


def _listed(numbers: Iterable[int], names: dict[int, str]) -> str:
    return ", ".join(f"{n} ({names[n]})" for n in numbers)


def _check_models(bus: Any) -> None:
    for name, motor in bus.motors.items():
        found = bus.sync_read("Model_Number", [name], normalize=False, num_retry=TRIES)[name]
        if found != bus.model_number_table[motor.model]:
            raise ValueError(f"servo {motor.id} ({name}) on {bus.port} is of model {found}, "
                             f"a {motor.model} is {bus.model_number_table[motor.model]}: another arm?")  # fmt: skip


def ping(bus: Any, number: int, tries: int = TRIES) -> Answer:
    """Who answers to an id."""
    return _answer(bus, Packet(number, Instruction.PING), tries)


def _together(bus: Any, number: int, name: str) -> bool:
    """Whether several servos have an id: what they answer to a ping is the same, where they are is not."""
    register = bus.model_ctrl_table[bus.motors[name].model]["Present_Position"]
    return _answer(bus, Packet(number, Instruction.READ, bytes(register))).servos > 1


def _answer(bus: Any, question: Packet, tries: int = TRIES) -> Answer:
    """Who answers to a question, of as many servos as have its id."""
    anything = False
    for _ in range(tries):
        data = _ask(bus.port_handler.ser, question.encode())
        answers = Decoder().feed(data)
        if len(answers) == 1 and len(data) == len(answers[0].encode()):
            return Answer(1, answers[0].code)
        anything = anything or bool(data)
    return Answer(2 if anything else 0)


def discard(serial: Any) -> None:
    """Forget what came late; a pseudo-terminal that is flushed says for a while that there is something to read."""
    while waiting := serial.in_waiting:
        serial.read(waiting)


def _ask(serial: Any, packet: bytes) -> bytes:
    """All that comes back, also while this process had to wait for a processor: the last look is after the time."""
    discard(serial)
    serial.write(packet)
    data, end, late = b"", time.monotonic() + PATIENCE_S, False
    while not late:
        late = time.monotonic() >= end
        more = serial.read(64)
        if more and not data:
            end, late = time.monotonic() + _QUIET_S, False
        data += more
    return data


def _elsewhere(bus: Any, ids: dict[int, str], missing: Iterable[int]) -> str:
    """At which other speed those that are missing do answer; "" at none."""
    usual = bus.get_baudrate()
    try:
        for baud in bus.available_baudrates:
            with suppress(RuntimeError, OSError, ValueError):
                bus.set_baudrate(baud)
                heard = [n for n in missing if baud != usual and ping(bus, n, 1).servos]
                if heard:
                    return f"servo {_listed(heard, ids)} speaks {baud} baud, not {usual}: run lerobot-setup-motors"
    finally:
        bus.set_baudrate(usual)
    return ""
