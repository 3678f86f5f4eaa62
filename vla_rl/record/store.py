"""EpisodeStore: finished episodes on disk. An episode is there whole or not at all, whatever happens to the process."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.durable import TEMPORARY, DiskFullError, is_full, locked, whole_file
from vla_rl.record.episode_file import (
    Columns,
    DamagedEpisodeError,
    read_digest,
    read_episode,
    read_meta,
    write_episode,
)
from vla_rl.record.schema import Schema, SchemaError

_MANIFEST, _LOCK, _SUFFIX, _BESIDE = "store.json", ".lock", ".episode", ".candidates"
_FORMAT = "vla_rl.episodes.v1"


class NotAStoreError(ValueError):
    """The folder holds something else."""


class EpisodeStore:
    """A folder of episode files and one manifest with what they have in common.

    What is on disk is the index: nothing else has to agree with it. The first `append` takes the writer's lock (until
    `close`), clears what a killed writer left half done, and from then on finished episodes are only ever added.

    Args:
        root: the folder; made by the first `append` where it does not exist.
        readonly: refuse to write, and insist that the store exists.

    Raises:
        NotAStoreError: `root` holds something else, or does not exist (readonly).
    """

    def __init__(self, root: str | Path, *, readonly: bool = False) -> None:
        self.root = Path(root)
        self.readonly = readonly
        self.id = ""
        self.schema: Schema | None = None
        self._resources = ExitStack()
        self._writing = False
        self._open()

    def _open(self) -> None:
        manifest = self.root / _MANIFEST
        if manifest.is_file():
            self._load_manifest(manifest)
        elif self.readonly and not self.root.is_dir():
            raise NotAStoreError(f"there is no episode store at {self.root}")
        elif self.root.exists() and (foreign := _foreign(self.root)):
            raise NotAStoreError(f"{self.root} holds something else than an episode store: {foreign}")
        self._files = sorted(self.root.glob(f"*{_SUFFIX}")) if self.root.is_dir() else []

    def _load_manifest(self, manifest: Path) -> None:
        try:
            data = json.loads(manifest.read_bytes())
            if data["format"] != _FORMAT:
                raise NotAStoreError(f"{manifest}: format '{data['format']}', this version reads '{_FORMAT}'")
            self.id, self.schema = data["id"], Schema.from_dict(data["schema"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise NotAStoreError(f"{manifest} is not the manifest of an episode store: {error!r}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the writer's lock."""
        self._resources.close()
        self._writing = False

    def __len__(self) -> int:
        """Number of finished episodes."""
        return len(self._files)

    def append(
        self,
        columns: Mapping[str, NDArray[Any]],
        meta: Mapping[str, Any],
        candidates: Mapping[str, NDArray[Any]] | None = None,
    ) -> int:
        """Add a finished episode durably.

        Args:
            columns: name to (T, ...) array, bool, integer or float32; uint8 (T, H, W, 3) are images.
            meta: JSON-ready. `fps` is needed; it, `robot_type`, `names`, `units`, `action_spec` agree in all episodes.
            candidates: all chunks that were drawn, as `record.candidates.stack` gives them; kept in a file beside.

        Returns:
            Its index.

        Raises:
            SchemaError: the episode is malformed or does not fit the store.
            LockedError: another process is writing to this store.
            DiskFullError: no room; all finished episodes are kept.
        """
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        plain = _plain(meta)
        schema = Schema.of(arrays, plain)
        if self.schema is not None:
            self.schema.require(schema)
        try:
            self._start_writing(schema)
            path = self.root / f"{self._next_number():06d}{_SUFFIX}"
            if candidates:  # first: the episode's own file is what makes both count
                with whole_file(path.with_suffix(_BESIDE)) as file:
                    write_episode(file, candidates, {})
            with whole_file(path) as file:
                write_episode(file, {name: arrays[name] for name in sorted(arrays)}, plain)
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFullError(
                f"no room left for {self.root}: its {len(self)} finished episodes are kept, the one under way is lost; "
                "free some space and run the same command again"
            ) from error
        self._files.append(path)
        return len(self._files) - 1

    def read(self, index: int, *, decode: bool = True) -> tuple[Columns, dict[str, Any]]:
        """Columns and meta of one episode.

        Args:
            index: which episode.
            decode: images as (T, H, W, 3) uint8; else as the list of their PNG files.

        Raises:
            DamagedEpisodeError: names file and episode; the others stay readable.
            IndexError: no such episode.
        """
        with _naming(self.root, index):
            return read_episode(self._files[index], decode=decode)

    def candidates(self, index: int) -> Columns:
        """Candidates drawn in one episode, as they were appended; empty where none were. Raises as `read` does."""
        beside = self._files[index].with_suffix(_BESIDE)
        with _naming(self.root, index):
            return read_episode(beside)[0] if beside.is_file() else {}

    def meta(self, index: int) -> dict[str, Any]:
        """Meta of one episode, without reading its columns. Raises as `read` does."""
        with _naming(self.root, index):
            return read_meta(self._files[index])

    def __iter__(self) -> Iterator[tuple[Columns, dict[str, Any]]]:
        """All episodes in order."""
        return (self.read(i) for i in range(len(self)))

    def episodes(self, *, decode: bool = True) -> Iterator[tuple[Columns, dict[str, Any], Columns]]:
        """Columns, meta and candidates of all episodes in order; arguments and errors as of `read`."""
        return ((*self.read(i, decode=decode), self.candidates(i)) for i in range(len(self)))

    def damaged(self) -> dict[int, str]:
        """Index to reason for every episode that can not be read whole."""
        found = {}
        for index in range(len(self)):
            try:
                self.read(index)
            except DamagedEpisodeError as error:
                found[index] = str(error)
        return found

    def digest(self) -> str:
        """Identity of the whole content: changes when an episode is added, and only then."""
        state = hashlib.sha256(self.id.encode())
        for index, path in enumerate(self._files):
            with _naming(self.root, index):
                both = [each for each in (path, path.with_suffix(_BESIDE)) if each.is_file()]
                state.update("".join(f"{each.name} {read_digest(each)}\n" for each in both).encode())
        return state.hexdigest()

    def _start_writing(self, schema: Schema) -> None:
        """Take the lock, read again what another writer may have added meanwhile, repair, write the manifest."""
        if self._writing:
            return
        if self.readonly:
            raise PermissionError(f"{self.root} was opened read-only")
        self.root.mkdir(parents=True, exist_ok=True)
        self._resources.enter_context(locked(self.root / _LOCK, f"the episode store {self.root}"))
        try:
            self._open()
            orphans = [p for p in self.root.glob(f"*{_BESIDE}") if not p.with_suffix(_SUFFIX).is_file()]
            for leftover in [*self.root.glob(f"*{TEMPORARY}"), *orphans]:
                leftover.unlink()
            if self.schema is None:
                self._write_manifest(schema)
            else:
                self.schema.require(schema)
        except BaseException:
            self._resources.close()
            raise
        self._writing = True

    def _write_manifest(self, schema: Schema) -> None:
        self.id = uuid.uuid4().hex
        text = json.dumps({"format": _FORMAT, "id": self.id, "schema": schema.to_dict()}, indent=1)
        with whole_file(self.root / _MANIFEST) as file:
            file.write(text.encode())
        self.schema = schema

    def _next_number(self) -> int:
        return int(self._files[-1].name.removesuffix(_SUFFIX)) + 1 if self._files else 0


@contextmanager
def _naming(root: Path, index: int) -> Iterator[None]:
    """Add store and episode number to the message of a damaged file."""
    try:
        yield
    except DamagedEpisodeError as error:
        raise DamagedEpisodeError(f"episode {index} of {root} is damaged: {error}") from error


def _foreign(root: Path) -> str:
    """The first thing in a folder that no store would have put there; empty where there is none."""
    if not root.is_dir():
        return "a file"
    names = sorted(p.name for p in root.iterdir())
    return next((n for n in names if n != _LOCK and not n.endswith(TEMPORARY)), "")


def _plain(value: Any) -> Any:
    """JSON-ready copy: numpy scalars and arrays become Python numbers and lists.

    Raises:
        SchemaError: something that JSON has no word for.
    """
    try:
        return json.loads(json.dumps(value, default=_number, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"an episode's meta must be plain JSON: {error}") from error


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
