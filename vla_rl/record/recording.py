"""Recording: one episode on its way to disk. Whoever receives never waits: a thread encodes and writes, another syncs.

::

    receivers --put--> queue --> writer: encodes, appends; a chunk to the system every 20 ms
                                   syncer: from the system to the disk every 100 ms

A killed process loses what is younger than a chunk, a power cut what is younger than a sync. What goes in is counted,
and so is what comes out; where a publisher's count or the queue's room says that something was lost, that is marked.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from vla_rl.record import cdr
from vla_rl.record.frames import FramesConfig, encoded
from vla_rl.record.mcap_file import Entry, EpisodeWriter


@dataclass(frozen=True)
class RecordingConfig:
    """How an episode is written.

    Attributes:
        frames: how raw camera frames are kept.
        chunk_s: messages are given to the system at least so often [s].
        sync_s: and to the disk [s].
        backlog: bytes that may wait to be written; more is refused and counted.
        spool: bytes that may wait before frames are kept raw instead of encoded: the disk takes the load.
    """

    frames: FramesConfig = field(default_factory=FramesConfig)
    chunk_s: float = 0.02
    sync_s: float = 0.1
    backlog: int = 512 << 20
    spool: int = 128 << 20


class Recording:
    """One episode under way; any thread may put.

    Args:
        path: the file, which must not exist.
        config: how.
        failed: called once, from a thread of its own, with the error that ended the writing.

    Attributes:
        taken, written: messages in and out by topic, as they came in.
        lost: messages that are missing by topic: by their publisher's count, for want of room, or that were no picture.
        error: what ended the writing, None while it goes on.
        sync_ms: how long the newest syncs took [ms].
    """

    def __init__(
        self, path: Path, config: RecordingConfig | None = None, failed: Callable[[Exception], None] = lambda _: None
    ) -> None:
        self.path, self.config = path, config or RecordingConfig()
        self.taken, self.written, self.lost = Counter[str](), Counter[str](), Counter[str]()
        self.error: Exception | None = None
        self.sync_ms: deque[float] = deque(maxlen=4096)
        self._failed, self._waiting, self._last = failed, 0, dict[tuple[str, bytes], int]()
        self._queue: SimpleQueue[tuple[Entry, bool] | None] = SimpleQueue()
        self._lock, self._closing, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._began_ns, self._monotonic_ns = time.time_ns(), time.monotonic_ns()
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        self._writer = EpisodeWriter(self._file)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for work, name in ((self._write, "recording"), (self._sync, "sync"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def seconds(self) -> float:
        """Since its beginning [s]."""
        return (time.monotonic_ns() - self._monotonic_ns) * 1e-9

    @property
    def began_ns(self) -> int:
        """When it began, system clock [ns]."""
        return self._began_ns

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    @property
    def crc(self) -> int:
        """Their CRC-32."""
        return self._writer.crc

    @property
    def sync_p99_ms(self) -> float:
        """How long one of a hundred syncs takes at least [ms]."""
        took = sorted(self.sync_ms)
        return took[int(0.99 * (len(took) - 1))] if took else 0.0

    def put(
        self,
        topic: str,
        kind: str,
        data: bytes,
        received_ns: int = 0,
        publisher: bytes = b"",
        sequence: int = 0,
        stamped: bool = True,
    ) -> None:
        """Take a serialised message; returns at once.

        Args:
            topic: relative name.
            kind: ROS type; an Image is encoded, everything else is kept as it is.
            data: CDR.
            received_ns: monotonic clock [ns]; 0 for now.
            publisher: identity of its publisher, whose messages `sequence` counts, 0 where that is unknown.
            sequence: see there; a gap counts as lost.
            stamped: whether it begins with a header.
        """
        log_ns = self._began_ns + max((received_ns or time.monotonic_ns()) - self._monotonic_ns, 0)
        stamp_ns = cdr.stamp_ns(data) if stamped else 0
        with self._lock:
            self._count(topic, publisher, sequence)
            if self._waiting + len(data) > self.config.backlog:
                self.lost[topic] += 1
                return
            spool = self._waiting > self.config.spool
            self._waiting += len(data)
        self._queue.put((Entry(topic, kind, data, log_ns, stamp_ns, sequence), spool))

    def refuse(self, topic: str, publisher: bytes = b"", sequence: int = 0) -> None:
        """Count a message that came and is not taken as lost; arguments as of `put`."""
        with self._lock:
            self._count(topic, publisher, sequence)
            self.lost[topic] += 1

    def _count(self, topic: str, publisher: bytes, sequence: int) -> None:
        """One more has come; what is missing by its publisher's count is lost."""
        self.taken[topic] += 1
        if sequence:
            last = self._last.get((topic, publisher), sequence - 1)
            self.lost[topic] += max(sequence - last - 1, 0)
            self._last[topic, publisher] = sequence

    def close(self) -> None:
        """Write everything that waits, and finish the file; where the writing has failed, only let go of it."""
        self._closing.set()
        self._queue.put(None)  # wakes the writer
        self._threads[0].join()
        self._over.set()
        self._threads[1].join()
        try:
            if self.error is None:
                self._writer.finish()
        finally:
            self._file.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            first, self.error = self.error is None, self.error or error
            self._over.set()
            if first:
                self._failed(error)

    def _write(self) -> None:
        due = time.monotonic() + self.config.chunk_s
        while True:
            item = self._next(due)
            if item is not None:
                self._append(*item)
            elif self._closing.is_set() and self._queue.empty():
                break
            if time.monotonic() >= due:
                self._writer.flush()
                due = time.monotonic() + self.config.chunk_s
        self._writer.flush()

    def _next(self, due: float) -> tuple[Entry, bool] | None:
        """What waits longest; None where nothing comes before a monotonic time [s]."""
        try:
            return self._queue.get(timeout=max(due - time.monotonic(), 0.0))
        except Empty:
            return None

    def _append(self, entry: Entry, spool: bool) -> None:
        kept = entry
        if entry.kind == cdr.IMAGE and not spool:
            kept = self._encoded(entry)
        self._writer.write(kept)
        with self._lock:
            self.written[entry.topic] += 1
            self._waiting -= len(entry.data)

    def _encoded(self, entry: Entry) -> Entry:
        """What is no picture that we can encode is kept as it came."""
        try:
            topic, kind, data = encoded(entry.topic, entry.data, self.config.frames)
        except ValueError:
            return entry
        return Entry(topic, kind, data, entry.log_ns, entry.stamp_ns, entry.sequence)

    def _sync(self) -> None:
        """Every `sync_s`, however long a sync takes; in between the disk begins with what was flushed.

        Both may wait for a busy disk. The thread that writes never does: what waits in it dies with the process.
        """
        last = time.monotonic()
        while not self._over.wait(min(max(last + self.config.sync_s - time.monotonic(), 0.0), self.config.chunk_s)):
            if time.monotonic() < last + self.config.sync_s:
                self._writer.send()
                continue
            last = time.monotonic()
            self._writer.sync()
            self.sync_ms.append(1e3 * (time.monotonic() - last))

    def counts(self) -> dict[str, dict[str, int]]:
        """By topic: messages `in`, `out` and `lost`."""
        with self._lock:
            topics = sorted(self.taken | self.lost)
            return {t: {"in": self.taken[t], "out": self.written[t], "lost": self.lost[t]} for t in topics}

    def damage(self) -> list[str]:
        """What is missing, one line each; empty where everything that was sent is there."""
        marks: list[Any] = [f"{c['lost']} messages of {t} were lost" for t, c in self.counts().items() if c["lost"]]
        marks += [f"{t}: {c['in']} in, {c['out']} out" for t, c in self.counts().items() if c["in"] != c["out"]]
        return [*marks, *([f"the writing failed: {self.error}"] if self.error else [])]


def warm_up() -> None:
    """Load and compile what the first episode's beginning would otherwise wait for, and its messages with it."""
    dot = np.zeros(3, np.uint8)
    image = cdr.make(
        cdr.IMAGE, header=cdr.header(0), height=1, width=1, encoding="rgb8", is_bigendian=0, step=3, data=dot
    )  # fmt: skip
    frame = cdr.encode(image, cdr.IMAGE)
    writer = EpisodeWriter(io.BytesIO())
    for keep in ("png", "jpeg", "raw"):
        topic, kind, data = encoded("image_raw", frame, FramesConfig(keep))
        writer.write(Entry(topic, kind, data, 0))
    for kind in (cdr.JOINT_STATE, cdr.TRAJECTORY, cdr.STRING):
        writer.write(Entry(kind, kind, b"", 0))
    writer.flush()
