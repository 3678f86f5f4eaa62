"""Session: a session's folder (see `record.folder`), to be recorded.

Whoever opens it repairs first what a killed recorder left: its open episode is cut back to the longest verified prefix,
and its outcome is what the operator had said by then, unknown where nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_rl.record import folder, mcap_file
from vla_rl.record.durable import TEMPORARY, DiskFullError, is_full, locked, sync_folder
from vla_rl.record.folder import EpisodeEntry, NotASessionError, SessionFolder
from vla_rl.record.marks import STATUS, Marks, marks_of, to_dict
from vla_rl.record.mcap_file import Entry
from vla_rl.record.recording import Recording, RecordingConfig
from vla_rl.types import RobotSpec

KILLED = "the recorder was killed: this is the longest verified prefix"


@dataclass(frozen=True)
class SessionConfig:
    """How a session is recorded.

    Attributes:
        min_free: refuse to begin with less room on the disk [bytes].
        low_water: refuse another episode, and close the one under way, with less [bytes].
        recording: how an episode is written.
    """

    min_free: int = 2 << 30
    low_water: int = 32 << 20
    recording: RecordingConfig = field(default_factory=RecordingConfig)


class Session(SessionFolder):
    """A session under way: holds the folder's lock until `close`.

    Args:
        root: its folder, made where it does not exist.
        robot: whose.
        cameras: their names.
        config: how.

    Raises:
        LockedError: another recorder has it.
        NotASessionError: it holds something else, or a session of another robot or with other cameras.
        DiskFullError: too little room.

    Attributes:
        repaired: what was mended at the start, one line each.
        number: of the episode under way, -1 where there is none.
    """

    def __init__(
        self, root: str | Path, robot: RobotSpec, cameras: list[str], config: SessionConfig | None = None
    ) -> None:
        self.root, self.config, self.number = Path(root), config or SessionConfig(), -1
        self._recording: Recording | None = None
        self._resources = ExitStack()
        _refuse_foreign(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._resources.enter_context(locked(self.root / folder.LOCK, f"the session {self.root}"))
        try:
            with self._telling("nothing is recorded"):
                self._require_room(self.config.min_free)
                self.about = self._claim(robot, cameras)
                self.repaired = self._repair()
        except BaseException:
            self._resources.close()
            raise
        known = [*folder.files(self.root), *folder.files(self.root / folder.TRASH)]
        self._next = 1 + max((int(path.stem) for path in known), default=-1)

    def begin(self, failed: Callable[[Exception], None] = lambda _: None) -> Recording:
        """Open the next episode: where messages go from now on. `failed` as in `Recording`.

        Raises:
            DiskFullError: too little room.
            RuntimeError: one is under way.
        """
        if self._recording is not None:
            raise RuntimeError(f"episode {self.number:06d} is under way")
        with self._telling("no episode is begun"):
            self._require_room(self.config.low_water)
            self._recording = Recording(self.root / f"{self._next:06d}.mcap", self.config.recording, failed)
            sync_folder(self.root)
        self.number, self._next = self._next, self._next + 1
        return self._recording

    def end(self, marks: Marks, about: Mapping[str, Any] | None = None) -> EpisodeEntry:
        """Complete the episode under way.

        Args:
            marks: what it came to.
            about: what else is to be remembered of it, JSON-ready; `damage` adds lines to what is found missing.

        Raises:
            DiskFullError: no room; what is on the disk is repaired at the next start.
            RuntimeError: none is under way.
        """
        recording, number = self._recording, self.number
        if recording is None:
            raise RuntimeError("no episode is under way")
        self._recording, self.number = None, -1
        with self._telling(f"episode {number:06d} stops here and is repaired at the next start"):
            recording.close()
            if recording.error is not None:
                raise recording.error
            extra = dict(about or {})
            damage = [*recording.damage(), *extra.pop("damage", [])]
            meta = {
                **extra, "began_ns": recording.began_ns, "seconds": recording.seconds, "topics": recording.counts(),
                "sync_p99_ms": round(recording.sync_p99_ms, 3),
            }  # fmt: skip
            return self._complete(recording.path, marks, damage, meta, recording.size, recording.crc)

    def revise(self, entry: EpisodeEntry, marks: Marks) -> EpisodeEntry:
        """Change what a complete episode came to: its JSON, and its place where it is discarded only now.

        Args:
            entry: as `end` or `revise` gave it.
            marks: all that was said of it.

        Raises:
            DiskFullError: no room; it stays as it was marked.
        """
        said, before = {**entry.meta, **to_dict(marks)}, entry.path
        with self._telling(f"episode {entry.number:06d} stays as it was marked"):
            path = self._discard(before) if marks.discarded and before.parent == self.root else before
            folder.write_json(path.with_suffix(".json"), said)
            if path != before:
                before.with_suffix(".json").unlink()
        return EpisodeEntry(entry.number, path, said)

    @property
    def free(self) -> int:
        """Room on the disk [bytes]."""
        return shutil.disk_usage(self.root).free

    def low_on_room(self) -> bool:
        """Whether so little room is left that the episode under way must be closed."""
        return self.free < self.config.low_water

    def close(self) -> None:
        """Complete what is under way, empty the trash and let go of the session."""
        try:
            if self._recording is not None:
                self.end(Marks())
        finally:
            shutil.rmtree(self.root / folder.TRASH, ignore_errors=True)
            self._resources.close()

    def _require_room(self, wanted: int) -> None:
        if (free := self.free) < wanted:
            raise DiskFullError(
                f"{self.root} has {free / 2**30:.2f} GiB of room where {wanted / 2**30:.2f} GiB are needed to record; "
                "free some space or choose another folder"
            )

    def _claim(self, robot: RobotSpec, cameras: list[str]) -> dict[str, Any]:
        """What session.json says; written where there is none."""
        wanted = {"robot": json.loads(json.dumps(robot.to_dict())), "cameras": list(cameras)}
        if not folder.is_session(self.root):
            about = {"format": folder.FORMAT, "id": uuid.uuid4().hex, **wanted}
            folder.write_json(self.root / folder.ABOUT, about)
            return about
        about = folder.read_about(self.root)
        if about["cameras"] != wanted["cameras"]:
            had, has = ", ".join(map(str, about["cameras"])), ", ".join(cameras)
            raise NotASessionError(f"{self.root} was recorded with the cameras {had}, not {has}; choose another folder")
        different = [key for key, value in wanted["robot"].items() if about["robot"].get(key) != value]
        if different:
            what = f"{different[0]} of {about['robot'].get('name')}" if different[0] != "name" else "robot"
            raise NotASessionError(f"{self.root} was recorded with another {what}; choose another folder")
        return about

    def _repair(self) -> list[str]:
        for leftover in self.root.glob(f"*{TEMPORARY}"):
            leftover.unlink()
        for path in folder.jsons(self.root):
            if (self.root / folder.TRASH / path.name).with_suffix(".mcap").is_file():  # killed while it was discarded
                self._discard(path)
        return [self._mend(path) for path in folder.files(self.root) if not path.with_suffix(".json").is_file()]

    def _mend(self, path: Path) -> str:
        """Complete an episode that a killed recorder left open."""
        before, topics, times, statuses = path.stat().st_size, Counter[str](), list[int](), list[Entry]()

        def look(entry: Entry) -> None:
            topics[entry.topic] += 1
            times[:] = [min([entry.log_ns, *times]), max([entry.log_ns, *times])]
            statuses.extend([entry] if entry.topic == STATUS else [])

        size, crc = mcap_file.repair(path, look)
        if not topics:
            self._discard(path)
            return f"{path.name}: nothing whole in its {before} bytes; it went to {folder.TRASH}"
        seconds = (times[1] - times[0]) * 1e-9
        meta = {"began_ns": times[0], "seconds": seconds, "topics": {t: {"out": n} for t, n in topics.items()}}
        self._complete(path, marks_of(statuses), [KILLED], meta, size, crc)
        return (
            f"{path.name}: was open, {topics.total()} messages of {seconds:.1f} s are whole ({before} bytes were there)"
        )

    def _complete(
        self, path: Path, marks: Marks, damage: list[str], meta: Mapping[str, Any], size: int, crc: int
    ) -> EpisodeEntry:
        """Write the JSON that makes an episode count, or move it to the trash."""
        number = int(path.stem)
        said = {"format": folder.EPISODE_FORMAT, "number": number, **to_dict(marks), "damage": damage, **meta}
        said |= {"seconds": round(said["seconds"], 3), "bytes": size, "crc32": crc}
        if marks.discarded:
            path = self._discard(path)
        folder.write_json(path.with_suffix(".json"), said)
        return EpisodeEntry(number, path, said)

    def _discard(self, path: Path) -> Path:
        trash = self.root / folder.TRASH
        trash.mkdir(exist_ok=True)
        return path.rename(trash / path.name)

    @contextmanager
    def _telling(self, consequence: str) -> Iterator[None]:
        """A full disk's error in one line with a way out."""
        try:
            yield
        except OSError as error:
            if not is_full(error) or isinstance(error, DiskFullError):
                raise
            raise DiskFullError(
                f"no room left on the disk of {self.root}: {consequence}; every complete episode is whole. "
                "Free some space and start again"
            ) from error


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise NotASessionError(f"{root} is a file; a session is a folder")
    if root.is_dir() and not folder.is_session(root):
        foreign = sorted(os.path.basename(p) for p in root.iterdir() if not folder.OURS.fullmatch(p.name))
        if foreign:
            raise NotASessionError(f"{root} holds something else than a session: {foreign[0]}; choose another folder")
