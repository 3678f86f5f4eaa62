"""A session's folder, to be read: one append-only MCAP file an episode, and what each came to.

::

    session.json    robot, cameras, and what else holds for every episode
    000000.mcap     an episode; complete once 000000.json is there, which is written last: outcome, notes, counts, marks
    trash/          discarded episodes, until the session closes
    dataset/        LeRobotDataset v3, made from the complete episodes (vla_rl.data.sessions)
    lock            held by the one recorder
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vla_rl.record import mcap_file
from vla_rl.record.durable import whole_file
from vla_rl.types import Outcome, RobotSpec

ABOUT, TRASH, DATASET, LOCK = "session.json", "trash", "dataset", "lock"
FORMAT, EPISODE_FORMAT = "vla_rl.session.v1", "vla_rl.session_episode.v1"
OURS = re.compile(r"\d{6}\.(mcap|json)|session\.json|trash|dataset(\.exporting|\.lock)?|lock|.*\.partial")
_EPISODE = re.compile(r"\d{6}")
_LARGEST_JSON, _BLOCK = 16 << 20, 1 << 20  # [bytes]


class NotASessionError(ValueError):
    """The folder holds something else, or a session that does not fit."""


@dataclass(frozen=True)
class EpisodeEntry:
    """A complete episode of a session: its number, its file and what its JSON says."""

    number: int
    path: Path
    meta: Mapping[str, Any]

    def damage(self, thorough: bool = False) -> str:
        """What is wrong with its file, "" where nothing is; `thorough` checks every byte."""
        if not self.path.is_file():
            return "it is missing"
        if (size := self.path.stat().st_size) != self.meta["bytes"]:
            return f"it has {size} bytes where {self.meta['bytes']} were written"
        if not mcap_file.complete(self.path):
            return "its end is missing"
        return "its checksum differs" if thorough and _crc(self.path) != self.meta["crc32"] else ""


class SessionFolder:
    """A session to be read; never changes anything.

    Args:
        root: its folder.

    Raises:
        NotASessionError: the folder is no session; one line.

    Attributes:
        about: what session.json says.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.about = read_about(self.root)

    @cached_property
    def robot(self) -> RobotSpec:
        """Whose session it is.

        Raises:
            NotASessionError: session.json describes none; one line.
        """
        try:
            return RobotSpec.from_dict(self.about["robot"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise NotASessionError(f"{self.root / ABOUT} describes no robot: {why}") from error

    def __len__(self) -> int:
        """How many episodes are complete, without reading what they came to."""
        return len(jsons(self.root))

    def episodes(self) -> list[EpisodeEntry]:
        """The complete episodes, in order; those whose JSON can not be read are left out (see `problems`)."""
        return [entry for entry in map(_entry, jsons(self.root)) if isinstance(entry, EpisodeEntry)]

    def problems(self, thorough: bool = False) -> list[str]:
        """What is wrong with complete episodes, one line each: file and reason.

        Args:
            thorough: check every byte, which reads everything; else sizes and ends.
        """
        found = []
        for entry in map(_entry, jsons(self.root)):
            if isinstance(entry, str):
                found.append(entry)
            elif reason := entry.damage(thorough):
                found.append(f"{entry.path.name}: {reason}")
        return found


def is_session(root: str | Path) -> bool:
    """Whether a folder says that it is a session."""
    return (Path(root) / ABOUT).is_file()


def read_about(root: Path) -> dict[str, Any]:
    """What session.json says.

    Raises:
        NotASessionError: it is missing, damaged or of another format.
    """
    path = root / ABOUT
    if not path.is_file():
        raise NotASessionError(f"{root} is no session: it has no {ABOUT}")
    about = _json(path)
    if isinstance(about, str):
        raise NotASessionError(about)
    if about.get("format") != FORMAT:
        raise NotASessionError(f"{path}: format {about.get('format')!r}, this version reads '{FORMAT}'")
    wrong = [key for key, kind in (("id", str), ("robot", dict), ("cameras", list)) if type(about.get(key)) is not kind]
    if wrong:
        raise NotASessionError(f"{path} says nothing of its {wrong[0]}")
    return about


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(data, indent=1).encode())


def files(root: Path) -> list[Path]:
    """The episodes' MCAP files, in order."""
    return sorted(path for path in root.glob("*.mcap") if _EPISODE.fullmatch(path.stem))


def jsons(root: Path) -> list[Path]:
    """The complete episodes' JSON files, in order."""
    return sorted(path for path in root.glob("*.json") if _EPISODE.fullmatch(path.stem))


def _entry(path: Path) -> EpisodeEntry | str:
    """A complete episode, or why its JSON can not be read."""
    meta = _json(path)
    if isinstance(meta, str):
        return meta
    if meta.get("format") != EPISODE_FORMAT or not isinstance(meta.get("bytes"), int):
        return f"{path.name} is no episode's: format {meta.get('format')!r}, this version reads '{EPISODE_FORMAT}'"
    for key, kind in (("crc32", int), ("seconds", int | float), ("notes", list)):
        if not isinstance(meta.get(key), kind):
            return f"{path.name} says nothing of its {key}"
    if meta.get("outcome") not in list(Outcome):
        return f"{path.name}: outcome {meta.get('outcome')!r}; there are: {', '.join(Outcome)}"
    return EpisodeEntry(int(path.stem), path.with_suffix(".mcap"), meta)


def _json(path: Path) -> dict[str, Any] | str:
    """An object in a JSON file, or what is wrong with it."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return f"{path} has {path.stat().st_size} bytes: too large"
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"{path} can not be read: {error}"
    return data if isinstance(data, dict) else f"{path} is no JSON object"


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
