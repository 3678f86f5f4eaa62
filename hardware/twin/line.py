"""A serial line in time: bytes from the port to the bus, and its answers back when the wire would have carried them."""

from __future__ import annotations

import heapq
import itertools

from vla_rl.hardware.twin.bus import Bus
from vla_rl.hardware.twin.faults import Faults
from vla_rl.hardware.twin.port import Port
from vla_rl.hardware.twin.protocol import Decoder, Packet, duration

SILENCE_S = 0.005  # a packet is not continued after so long
RETURN_DELAY_S = 2e-6  # unit of `Return_Delay_Time`


class Line:
    """One port with the bus behind it.

    Args:
        port: where a driver speaks.
        bus: whom it speaks to.
        faults: what happens on the way.
    """

    def __init__(self, port: Port, bus: Bus, faults: Faults) -> None:
        self.port, self.bus, self.faults = port, bus, faults
        self._heard, self._clean = Decoder(), Decoder()
        self._answers: list[tuple[float, int, bytes]] = []
        self._order, self._spoke, self._free = itertools.count(), 0.0, 0.0

    def listen(self, now: float) -> None:
        """Take what a driver has sent by a time [s]."""
        data = self.port.read()
        if not data:
            return
        baud, counts = self.port.baud, self.bus.journal.counts
        counts["bytes_heard"] += len(data)
        for packet in self._clean.feed(data):
            self.bus.meant(packet)
        self._spoke, start = now, max(now, self._free)
        counts["collisions"] += int(bool(self._answers))
        for packet in self._heard.feed(self.faults.heard(data)):
            counts["packets"] += 1
            start = self._answer(packet, start + duration(len(packet.parameters) + 6, max(baud, 1200)), baud)
        counts["checksum_errors"], counts["junk"] = self._heard.checksum_errors, self._heard.junk
        counts["damaged"] = self.faults.heard.damaged + self.faults.said.damaged

    def _answer(self, packet: Packet, at: float, baud: int) -> float:
        """Have a packet that ends at a time [s] carried out; when the wire is free again."""
        delay = max(s.memory["Return_Delay_Time"] for s in self.bus.servos) * RETURN_DELAY_S
        for answer in self.faults.order(self.bus.handle(packet, at, baud)):
            at += delay + duration(len(answer), max(baud, 1200))
            heapq.heappush(self._answers, (at + self.faults.late_s, next(self._order), answer))
        self._free = at
        return at

    def speak(self, now: float) -> None:
        """Send the answers that are due at a time [s]; forget a packet that nobody completed."""
        while self._answers and self._answers[0][0] <= now:
            data = self.faults.said(heapq.heappop(self._answers)[2])
            lost = len(data) - self.port.write(data)
            self.bus.journal.counts["bytes_unread"] += lost
        if self._heard.pending and now > self._spoke + SILENCE_S:
            self._heard.expire()
            self._clean.expire()

    def hang_up(self) -> None:
        """The port is gone: nothing of what was under way arrives."""
        self._answers.clear()
        self._heard.expire()
        self._clean.expire()
        self.port.pull()

    @property
    def due(self) -> float:
        """When there is something to say [s], inf where there is not."""
        return self._answers[0][0] if self._answers else float("inf")
