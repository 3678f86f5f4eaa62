"""Persistence on a Feetech bus: what got lost is asked for again, of those servos alone whose answers did not come.

Of itself the SDK gives up a whole group of servos with the first answer that is damaged, and asks nothing twice. On a
line that damages one byte in a hundred not one in three questions to six servos would be answered by all of them.

::

    group     ask 1 2 3 4 5 6 --> 1 . 3 4 . 6   silence   ask 2 5 --> 2 .   silence   ask 5 --> 5
              |------------------------------- PATIENCE_S at most --------------------------------|

A packet to all servos is not acknowledged, and a byte too many or too few shifts what comes after it: a goal can become
another servo's, where the checksum of 8 bits happens to fit. While a line loses things, servos are told one by one,
in short packets that each acknowledges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from vla_rl.hardware.ports import REPLY_S, tune
from vla_rl.hardware.twin.protocol import HEADER, Instruction, Packet, checksum

PATIENCE_S = 0.025  # no question is asked again after so long: a period is 33 ms; where little gets lost, once
SILENCE_S = 0.003  # after an answer: the next one would have come
TRIES = 3  # of a question to one servo
PROMPT_S, USUALLY = 0.006, 4.0  # where answers get lost: the shortest wait for one, and how many usual ones it is
LOSSY, MEMORY = 0.02, 0.02  # share of answers lost lately that makes a line lossy; weight of the newest question


class Persistence:
    """What LeRobot's bus goes through from now on.

    Args:
        bus: a FeetechMotorsBus, open; its waiting is tuned as well (`ports.tune`).
        lost: takes how many answers did not come, whenever some did not.

    Attributes:
        silent: ids that did not answer to the last question to several.
    """

    def __init__(self, bus: Any, lost: Callable[[int], None]) -> None:
        handler, reader, writer = bus.packet_handler, bus.sync_reader, bus.sync_writer
        self._ask_once = partial(type(handler).txRxPacket, handler)
        self._tell_once = partial(type(writer).txPacket, writer)
        handler.txRxPacket = self._one
        reader.txRxPacket, writer.txPacket = partial(self._group, reader), partial(self._tell, writer)
        tune(bus.port_handler, self._wait)
        self._lost, self._share_lost, self._usual_s = lost, 0.0, PROMPT_S / USUALLY
        self.silent: list[int] = []

    @property
    def lossy(self) -> bool:
        """Whether the line lost many answers lately."""
        return self._share_lost > LOSSY

    def _wait(self, known: bool = False) -> float:
        """How long to wait for an answer to begin [s]; less where answers get lost, or are known to come by now."""
        return min(REPLY_S, max(PROMPT_S, USUALLY * self._usual_s)) if known or self.lossy else REPLY_S

    def _one(self, port: Any, packet: list[int]) -> tuple[Any, int, int]:
        """`txRxPacket` of the SDK's packet handler: whatever one servo is asked or told."""
        from scservo_sdk import COMM_RX_CORRUPT, COMM_RX_TIMEOUT

        size = 6 + (packet[6] if packet[4] == Instruction.READ else 0)
        for _ in range(1 if packet[2] in self.silent else TRIES):
            answer, result, error = self._ask_once(port, packet)
            if result == 0 and answer is not None and len(answer) != size:
                result = COMM_RX_CORRUPT  # the SDK does not look how long an answer is
            if result not in (COMM_RX_TIMEOUT, COMM_RX_CORRUPT):
                break
            self._lost(1)
        return answer, result, error

    def _tell(self, writer: Any) -> int:
        """`txPacket` of the SDK's GroupSyncWrite. On a lossy line whoever did not acknowledge has not heard."""
        if not self.lossy:
            return int(self._tell_once())
        for number, data in writer.data_dict.items():
            writer.ph.writeTxRx(writer.port, number, writer.start_address, writer.data_length, data)
        return 0

    def _group(self, reader: Any) -> int:
        """`txRxPacket` of the SDK's GroupSyncRead, whose `data_dict` comes with an empty list for each id."""
        self.silent, count = list(reader.data_dict), len(reader.data_dict)
        end, rounds = time.monotonic() + PATIENCE_S, 0
        while True:
            asked, known = self.silent, len(self.silent) < count
            result = int(reader.ph.syncReadTx(reader.port, reader.start_address, reader.data_length, asked, len(asked)))
            if result == 0:
                result = self._listen(reader, self._wait(known))
            if rounds == 0:
                self._share_lost += MEMORY * (len(self.silent) / count - self._share_lost)
            rounds += 1
            if not self.silent:
                return result
            self._lost(len(self.silent))
            if time.monotonic() > end or (rounds > 1 and not self.lossy):
                return result

    def _listen(self, reader: Any, wait_s: float) -> int:
        """Take answers, in whatever order, until all are there or the line is silent."""
        from scservo_sdk import COMM_RX_CORRUPT, COMM_RX_TIMEOUT, COMM_SUCCESS

        serial, asked, data, began = reader.port.ser, self.silent, b"", time.monotonic()
        end, found = began + wait_s, dict[int, list[int]]()
        while self.silent and time.monotonic() < end:
            if not (more := serial.read(max(1, serial.in_waiting))):
                continue
            now = time.monotonic()
            if not data:
                self._usual_s += MEMORY * (now - began - self._usual_s)
            data, end = data + more, now + SILENCE_S
            found = {a.id: list(a.parameters) for a in answers(data) if len(a.parameters) == reader.data_length}
            self.silent = [number for number in asked if number not in found]
        reader.data_dict.update((number, found[number]) for number in asked if number in found)
        reader.port.is_using = False
        return int(COMM_SUCCESS if not self.silent else COMM_RX_CORRUPT if data else COMM_RX_TIMEOUT)


def answers(data: bytes) -> list[Packet]:
    """The packets of a line's data behind which is nothing, or another's header.

    A byte FF that gets lost is made up for by the first of the next header, and the checksum fits every time.
    """
    found, at = [], 0
    while (at := data.find(HEADER, at)) >= 0 and at + 4 <= len(data):
        end = at + 4 + data[at + 3]
        body = data[at + 2 : end - 1]
        if end <= len(data) and checksum(body) == data[end - 1] and data[end : end + 2] in (b"", HEADER):
            found.append(Packet(body[0], body[2], body[3:]))
            at = end
        else:
            at += 1
    return found
