"""The bus: every servo hears every packet; those that are meant act and answer, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from vla_rl.hardware.twin.journal import Journal
from vla_rl.hardware.twin.protocol import BROADCAST, Error, Instruction, Packet
from vla_rl.hardware.twin.servo import Servo

REMEMBERED = 96  # writes that a host meant

Write = tuple[int, int, bytes]  # id, address, data


def writes(packet: Packet) -> Iterator[Write]:
    """What a packet asks to be written, and to whom."""
    p = packet.parameters
    if packet.code in (Instruction.WRITE, Instruction.REG_WRITE) and len(p) > 1:
        yield packet.id, p[0], p[1:]
    elif packet.code == Instruction.SYNC_WRITE and len(p) > 2 and p[1] > 0:
        size = p[1] + 1
        for start in range(2, len(p) - size + 1, size):
            yield p[start], p[0], p[start + 1 : start + size]


class Bus:
    """Servos on one pair of wires.

    Args:
        servos: in the order of the joints.
        journal: where their goals and torque edges go.
    """

    def __init__(self, servos: Sequence[Servo], journal: Journal) -> None:
        self.servos, self.journal = tuple(servos), journal
        self._meant: deque[Write] = deque(maxlen=REMEMBERED)
        self._waiting: dict[Servo, tuple[int, bytes]] = {}

    def meant(self, packet: Packet) -> None:
        """A packet as the host sent it, before anything damaged it: what it asks for is no wrong write."""
        self._meant.extend(writes(packet))

    def handle(self, packet: Packet, now: float, baud: int) -> list[bytes]:
        """Carry out a packet heard at a time [s] and a speed [bit/s]; the answers in their order.

        Two servos of one id answer together: low wins on the wire, bit by bit.
        """
        listening = [s for s in self.servos if s.baud == baud and not s.ailment.silent]
        if not listening:
            self.journal.counts["wrong_baud"] += 1
        parts = packet.parameters
        match packet.code:
            case Instruction.PING if packet.id == BROADCAST:
                return self._answers(listening, sorted({s.id for s in listening}), 0, 0)
            case Instruction.PING:
                return self._answers(listening, [packet.id], 0, 0)
            case Instruction.READ if len(parts) == 2:
                return self._answers(listening, [packet.id], *parts)
            case Instruction.SYNC_READ if len(parts) > 2:
                return self._answers(listening, list(parts[2:]), parts[0], parts[1])
            case Instruction.WRITE | Instruction.REG_WRITE | Instruction.SYNC_WRITE | Instruction.ACTION:
                return self._change(packet, listening, now)
        self.journal.counts["unknown_instructions"] += 1
        return []

    def _answers(self, listening: Sequence[Servo], ids: Sequence[int], address: int, length: int) -> list[bytes]:
        """One answer an id, with that many bytes of the table."""
        together = [[_status(s, s.read(address, length)) for s in listening if s.id == i] for i in ids]
        return [_collide(answers) for answers in together if answers]

    def _change(self, packet: Packet, listening: Sequence[Servo], now: float) -> list[bytes]:
        """Carry out a packet that writes; servos acknowledge what was for them alone."""
        numbers = [s.id for s in listening]  # a write may change them
        for number, address, data in writes(packet):
            for servo, own in zip(listening, numbers, strict=True):
                if number not in (own, BROADCAST):
                    continue
                if packet.code == Instruction.REG_WRITE:
                    self._waiting[servo] = (address, data)
                else:
                    self._write(servo, address, data, now)
        if packet.code == Instruction.ACTION:
            for servo in [s for s in self._waiting if packet.id in (s.id, BROADCAST)]:
                self._write(servo, *self._waiting.pop(servo), now)
        return self._acknowledge(packet, listening, numbers)

    def _acknowledge(self, packet: Packet, listening: Sequence[Servo], numbers: Sequence[int]) -> list[bytes]:
        if packet.code == Instruction.SYNC_WRITE or packet.id == BROADCAST:
            return []
        asked = [s for s, own in zip(listening, numbers, strict=True) if own == packet.id]
        answers = [_status(s, b"", packet.id) for s in asked if s.memory["Response_Status_Level"]]
        return [_collide(answers)] if answers else []

    def _write(self, servo: Servo, address: int, data: bytes, now: float) -> None:
        """Carry out one write, and note what became of it."""
        counts, was, number = self.journal.counts, servo.torque_on, servo.id
        counts["writes"] += 1
        if not any((i, address, data) in self._meant for i in (number, BROADCAST)):
            counts["wrong_id_writes" if self._somebody_elses(address, data) else "altered_writes"] += 1
        written = servo.write(address, data, now)
        if "Goal_Position" in written:
            self._note_goal(servo, written["Goal_Position"], now)
        if servo.torque_on != was:
            self.journal.note(now, "torque", number, int(servo.torque_on))

    def _somebody_elses(self, address: int, data: bytes) -> bool:
        """Whether another servo was to have this."""
        return any((a, d) == (address, data) for _, a, d in self._meant)

    def _note_goal(self, servo: Servo, goal: int, now: float) -> None:
        counts, memory = self.journal.counts, servo.memory
        low, high = memory["Min_Position_Limit"], memory["Max_Position_Limit"]
        counts["goals"] += 1
        counts["goals_outside"] += int(not (low <= goal <= high or low == high == 0))
        counts["goals_without_torque"] += int(not servo.torque_on)
        self.journal.note(now, "goal", servo.id, goal)


def _status(servo: Servo, data: bytes, number: int | None = None) -> bytes:
    return Packet(servo.id if number is None else number, int(servo.error & Error(0x7F)), data).encode()


def _collide(answers: Sequence[bytes]) -> bytes:
    """What is on the wire where several speak at once."""
    wire = bytearray(max(answers, key=len))
    for answer in answers:
        for i, byte in enumerate(answer):
            wire[i] &= byte
    return bytes(wire)
