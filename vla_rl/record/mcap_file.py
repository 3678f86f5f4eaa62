"""One episode as one MCAP file: messages as they came over the wire, in chunks that carry a CRC.

::

    file  = MAGIC header (chunk message-index*)* data-end summary footer MAGIC
    chunk = schemas, channels and messages of some 20 ms, uncompressed, and their CRC-32

It is only ever appended to. What a killed writer leaves is a prefix: `verified` gives every message of its whole
chunks, and `repair` makes a complete file of them. `ros2 bag`, Foxglove, Rerun and rosbags read the format.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from mmap import PAGESIZE
from pathlib import Path
from typing import IO, Any

from vla_rl.record import cdr
from vla_rl.record.durable import whole_file
from vla_rl.record.episode_file import DamagedEpisodeError

MAGIC = b"\x89MCAP0\r\n"
_CHUNK = 1 << 20  # [bytes]; time closes most chunks before that
_TAIL = 37  # footer record and magic


@dataclass(frozen=True)
class Entry:
    """One recorded message.

    Attributes:
        topic: relative name.
        kind: ROS type.
        data: serialised, CDR.
        log_ns: when it was received: the system's time at the episode's start and a monotonic clock from there on.
        stamp_ns: its own stamp, for a frame the capture time; 0 where it has none.
        sequence: its publisher's count.
        place: of one that was read, for `Messages`: where its chunk begins in the file, and its number there.
    """

    topic: str
    kind: str
    data: bytes
    log_ns: int
    stamp_ns: int = 0
    sequence: int = 0
    place: tuple[int, int] = field(default=(-1, -1), compare=False)


class EpisodeWriter:
    """An MCAP file under way; one thread writes, any may `send` and `sync`.

    Args:
        file: open for writing, at its beginning, without a buffer.
    """

    def __init__(self, file: IO[bytes]) -> None:
        from mcap.writer import CompressionType, Writer

        self._file = file
        self._stream = _Counted(file)
        output: Any = self._stream
        self._writer = Writer(output, _CHUNK, CompressionType.NONE, enable_data_crcs=True)
        self._writer.start(profile="ros2", library="vla_rl")
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._stream.size

    @property
    def crc(self) -> int:
        """CRC-32 of the bytes written."""
        return self._stream.crc

    def write(self, entry: Entry) -> None:
        """Add a message to the chunk under way."""
        key = (entry.topic, entry.kind)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = self._register(entry)
        self._writer.add_message(channel, entry.log_ns, entry.data, entry.stamp_ns or entry.log_ns, entry.sequence)

    def flush(self) -> None:
        """Close the chunk under way and give it to the system: from now on it outlives this process."""
        self._writer.flush()

    def send(self) -> None:
        """Have the disk begin with what was flushed, so that little is left for `sync`; returns at once.

        Whole pages only: what the system lets go of it would have to read again to append to.
        """
        if whole := self.size - self.size % PAGESIZE:
            os.posix_fadvise(self._file.fileno(), 0, whole, os.POSIX_FADV_DONTNEED)  # begins to write what is dirty

    def sync(self) -> None:
        """Have the disk keep what was flushed: from now on it outlives the power."""
        os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Write indexes and footer, and have the disk keep everything."""
        self._writer.finish()
        os.fsync(self._file.fileno())

    def _register(self, entry: Entry) -> int:
        if entry.kind not in self._schemas:
            text = cdr.definition(entry.kind)
            self._schemas[entry.kind] = self._writer.register_schema(entry.kind, "ros2msg", text)
        return self._writer.register_channel("/" + entry.topic.lstrip("/"), "cdr", self._schemas[entry.kind])


class _Counted:
    """A file that counts and checksums what is written to it; a write that the disk cuts short is gone on with."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = self.crc = 0

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._file.write(rest) :]
        self.size, self.crc = self.size + len(data), zlib.crc32(data, self.crc)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()


def verified(path: Path) -> Iterator[Entry]:
    """The messages of every whole chunk up to the first damage, in the order in which they were written."""
    yield from _entries(path, strict=False)


def read(path: Path) -> Iterator[Entry]:
    """All messages of a complete file, in the order in which they were written, everything checked.

    Raises:
        DamagedEpisodeError: it is truncated or altered; the message names it.
    """
    yield from _entries(path, strict=True)


class Messages:
    """The data of single messages of a file that was read before, by their places; the newest chunk stays in memory.

    Args:
        path: the file, which must not have changed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._start = path, -1
        self._chunk: list[bytes] = []

    def __call__(self, place: tuple[int, int]) -> bytes:
        """The data of the message at a place."""
        start, number = place
        if start != self._start:
            self._chunk, self._start = self._read(start), start
        return self._chunk[number]

    def _read(self, start: int) -> list[bytes]:
        from mcap.records import Chunk, Message
        from mcap.stream_reader import StreamReader, breakup_chunk

        with open(self._path, "rb") as file:
            file.seek(start)
            record = next(iter(StreamReader(file, skip_magic=True, emit_chunks=True).records))
        records = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else []
        return [each.data for each in records if isinstance(each, Message)]


def complete(path: Path) -> bool:
    """Whether a file ends as a complete one does; a look at its last bytes."""
    with open(path, "rb") as file:
        if file.read(8) != MAGIC or file.seek(0, os.SEEK_END) < _TAIL + 8:
            return False
        file.seek(-8, os.SEEK_END)
        return file.read() == MAGIC


def repair(path: Path, look: Callable[[Entry], None] = lambda _: None) -> tuple[int, int]:
    """Make a complete file of what a killed writer left.

    The new file takes the old one's place when it is whole, so that a repair may be killed, too.

    Args:
        path: the file.
        look: is shown every message that is left.

    Returns:
        Its size now and its CRC-32.
    """
    with whole_file(path) as file:
        writer = EpisodeWriter(file)
        for entry in verified(path):
            writer.write(entry)
            look(entry)
        writer.finish()
    return writer.size, writer.crc


def _entries(path: Path, strict: bool) -> Iterator[Entry]:
    from mcap.records import Chunk, Footer
    from mcap.stream_reader import StreamReader, breakup_chunk

    channels: dict[int, Any] = {}
    kinds: dict[int, str] = {}
    ended = False
    with open(path, "rb") as file:
        limit = path.stat().st_size
        reader = StreamReader(file, emit_chunks=True, validate_crcs=strict, record_size_limit=limit).records
        while True:
            try:
                start = file.tell()
                record = next(reader, None)
                records = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else []
                entries = [e for e in (_entry(r, channels, kinds) for r in records) if e is not None]
            except Exception as error:  # damage shows itself in many ways
                if strict:
                    raise DamagedEpisodeError(f"{path.name}: {str(error) or type(error).__name__}") from error
                return
            if record is None:
                break
            ended |= isinstance(record, Footer)
            yield from (replace(entry, place=(start, number)) for number, entry in enumerate(entries))
    if strict and not ended:
        raise DamagedEpisodeError(f"{path.name}: its end is missing")


def _entry(record: Any, channels: dict[int, Any], kinds: dict[int, str]) -> Entry | None:
    """A message of a chunk; its schemas and channels are remembered."""
    from mcap.records import Channel, Message, Schema

    if isinstance(record, Schema):
        kinds[record.id] = record.name
    elif isinstance(record, Channel):
        channels[record.id] = record
    elif isinstance(record, Message):
        channel = channels[record.channel_id]
        topic, kind = channel.topic.removeprefix("/"), kinds[channel.schema_id]
        return Entry(topic, kind, record.data, record.log_time, record.publish_time, record.sequence)
    return None
