"""Packets of the Feetech serial bus (protocol 0: STS and SMS servos): framing, checksum, and a decoder of streams.

::

    FF FF  id  length  instruction or error  parameters ...  checksum
               = parameters + 2                              = ~(id + length + instruction + parameters) & FF
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

HEADER = b"\xff\xff"
BROADCAST = 0xFE
SHORTEST, LONGEST = 2, 250  # of the length field
BITS_PER_BYTE = 10  # start, eight, stop


class Instruction(enum.IntEnum):
    """What a host can ask of servos."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Error(enum.IntFlag):
    """The byte in which a servo says what is wrong with it; register `Status` holds the same."""

    NONE = 0
    VOLTAGE = 1
    SENSOR = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        id: of the servo that is asked or that answers, or BROADCAST.
        code: the instruction, or in an answer the error.
        parameters: the rest.
    """

    id: int
    code: int
    parameters: bytes = b""

    def encode(self) -> bytes:
        """The packet as it is on the wire."""
        body = bytes((self.id, len(self.parameters) + 2, self.code)) + self.parameters
        return HEADER + body + bytes((checksum(body),))


def checksum(body: bytes) -> int:
    """Of everything between header and checksum."""
    return ~sum(body) & 0xFF


def duration(count: int, baud: int) -> float:
    """Time that bytes take on the wire [s]."""
    return count * BITS_PER_BYTE / baud


class Decoder:
    """Finds packets in a stream of bytes that may be damaged.

    Attributes:
        checksum_errors: packets whose checksum was wrong.
        junk: bytes that belonged to no packet.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.checksum_errors = self.junk = 0

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that these bytes complete, in order."""
        self._buffer += data
        packets: list[Packet] = []
        while self._seek() and len(self._buffer) >= self._whole():
            body, check = bytes(self._buffer[2 : self._whole() - 1]), self._buffer[self._whole() - 1]
            if checksum(body) == check:
                packets.append(Packet(body[0], body[2], body[3:]))
                del self._buffer[: len(body) + 3]
            else:
                self.checksum_errors += 1
                self._drop(1)
        return packets

    def expire(self) -> None:
        """The line was silent for too long: what is half there will not be completed."""
        self._drop(len(self._buffer))

    @property
    def pending(self) -> bool:
        """Whether a packet is half there."""
        return bool(self._buffer)

    def _whole(self) -> int:
        """Size of the packet at the buffer's start [bytes]."""
        return self._buffer[3] + 4

    def _seek(self) -> bool:
        """Drop bytes until the buffer starts with a possible packet; whether its length is known."""
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                self._drop(len(self._buffer) - self._buffer.endswith(b"\xff"))
                return False
            self._drop(start)
            if len(self._buffer) < 4:
                return False
            # an id of FF is a header that starts one byte later
            if self._buffer[2] != 0xFF and SHORTEST <= self._buffer[3] <= LONGEST:
                return True
            self._drop(1)

    def _drop(self, count: int) -> None:
        self.junk += count
        del self._buffer[:count]
