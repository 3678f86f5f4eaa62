"""Sidecars: Parquet files beside a data set, row by row, so that what is found out later never rewrites the set.

::

    meta/candidates.parquet        all chunks that were drawn, the rejected ones too: one row a decision
    meta/<column>_<tag>.parquet    rewards, returns, advantages, ...: one row a frame

Every row names its frame (`index`, counted through the set, `episode_index`, `frame_index`); the schema's metadata says
how the file was made and of which set it speaks. LeRobot reads none of these files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.dataset import DatasetError
from vla_rl.record.durable import whole_file
from vla_rl.record.episode_file import Columns

CANDIDATES = "candidates"
_ABOUT = b"vla_rl"  # key of the JSON in a file's metadata
_NOT_SIDECARS = ("tasks.parquet",)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def path_of(root: Path, column: str, tag: str = "") -> Path:
    """Where a sidecar lies.

    Raises:
        ValueError: a name that is no file name.
    """
    name = f"{column}_{tag}" if tag else column
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' can not name a sidecar; use lower-case letters, digits, '_', '-' and '.'")
    return root / "meta" / f"{name}.parquet"


def is_sidecar(path: Path, root: Path) -> bool:
    """Whether a file of a data set is one of its sidecars: the set is the same with and without it."""
    return path.parent == root / "meta" and path.suffix == ".parquet" and path.name not in _NOT_SIDECARS


def write_column(
    root: Path, column: str, tag: str, values: NDArray[Any], starts: NDArray[np.int64], about: Mapping[str, Any]
) -> Path:
    """Write one number a frame beside the set, in place of what had the same column and tag.

    Args:
        root: the data set's folder.
        column, tag: name of the file, and `column` of the column in it.
        values: (N,), finite.
        starts: first row of each episode, and N at the end, (E + 1,).
        about: how the values were made, JSON-ready.

    Raises:
        DatasetError: not one number a frame, or a value that is not finite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if values.shape != (starts[-1],) or not np.isfinite(values).all():
        raise DatasetError(f"'{column}' needs {starts[-1]} finite numbers, one a frame; got shape {values.shape}")
    episode = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    table = {**_places(np.arange(len(values)), episode, starts), column: values.astype(np.float32)}
    where = path_of(root, column, tag)
    with whole_file(where) as file:
        pq.write_table(pa.table(table).replace_schema_metadata({_ABOUT: json.dumps(dict(about))}), file)
    return where


def read_column(root: Path, column: str, tag: str, rows: int) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The numbers (N,) of a sidecar, and how they were made.

    Raises:
        DatasetError: there is none (the message lists those there are), or it speaks of another number of frames.
    """
    import pyarrow.parquet as pq

    where = path_of(root, column, tag)
    if not where.is_file():
        raise DatasetError(
            f"{root} has no '{column}' of tag '{tag}'; it has: {', '.join(tags(root, column)) or 'none'}"
        )
    table = pq.read_table(where)
    if table["index"].to_pylist() != list(range(rows)):
        raise DatasetError(f"{where} speaks of {len(table)} frames, the set has {rows}: make it again")
    return table[column].to_numpy().astype(np.float32), _about(table.schema)


def about_column(root: Path, column: str, tag: str) -> dict[str, Any]:
    """How the numbers of a sidecar were made, without reading them; empty where it does not say, or is not there."""
    import pyarrow.parquet as pq

    where = path_of(root, column, tag)
    return _about(pq.read_schema(where)) if where.is_file() else {}


def tags(root: Path, column: str) -> list[str]:
    """Tags under which a column was written."""
    found = sorted((root / "meta").glob(f"{column}_*.parquet"))
    return [path.stem.removeprefix(f"{column}_") for path in found if is_sidecar(path, root)]


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """Candidates of a data set, one set of chunks a decision.

    Attributes:
        rows: at which frames they were drawn, counted through the set, ascending, (M,).
        chunks: (M, K, H, A) float32, finite.
        values: what an ensemble of E critics said of them, (M, E, K), None where not all have values.
        selected: which one was taken, (M,).
        seed: of the noise, (M,).
    """

    rows: NDArray[np.int64]
    chunks: NDArray[np.float32]
    values: NDArray[np.float32] | None
    selected: NDArray[np.int64]
    seed: NDArray[np.int64]

    def first(self, k: int) -> CandidateTable:
        """The first K of every decision."""
        values = None if self.values is None else self.values[..., :k]
        return replace(self, chunks=self.chunks[:, :k], values=values)


@contextmanager
def candidates_writer(root: Path) -> Iterator[CandidatesWriter]:
    """Write `meta/candidates.parquet` episode by episode; there is no file where nothing was added."""
    writer = CandidatesWriter(path_of(root, CANDIDATES))
    try:
        yield writer
    finally:
        writer.close()


class CandidatesWriter:
    """Appends the candidates of one episode after the other.

    Args:
        path: of the file, made by the first episode that has candidates.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def add(self, episode: int, start: int, candidates: Columns) -> None:
        """Add an episode whose first frame is `start`; `candidates` as `record.candidates.stack` gives them."""
        if not candidates:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        frames, chunks = candidates["row"], candidates["chunks"]
        values = candidates.get("values", np.zeros((len(frames), 0, chunks.shape[1]), np.float32))
        shape = np.broadcast_to(np.array([*chunks.shape[1:], values.shape[1]], np.int32), (len(frames), 4))
        table = pa.table(
            {
                "index": start + frames,
                "episode_index": np.full(len(frames), episode),
                "frame_index": frames,
                "selected": candidates["selected"],
                "seed": candidates["seed"],
                "shape": _lists(shape),  # K, H, A, E
                "chunks": _lists(chunks),
                "values": _lists(values),
            }
        )
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def read_candidates(root: Path) -> CandidateTable | None:
    """All candidates of a data set, None where none were recorded.

    Decisions with fewer chunks than most have (a deadline, a chunk that was not finite) are left out, so that all have
    the same K.
    """
    import pyarrow.parquet as pq

    where = path_of(root, CANDIDATES)
    if not where.is_file():
        return None
    table = pq.read_table(where)
    shapes = np.asarray(table["shape"].combine_chunks().flatten(), np.int64).reshape(-1, 4)
    counts = np.prod(shapes[:, :3], axis=1)
    kinds, number = np.unique(shapes, axis=0, return_counts=True)
    k, h, a, e = (int(n) for n in kinds[number.argmax()])
    same = (shapes == (k, h, a, e)).all(axis=1)
    flat = table["chunks"].combine_chunks().flatten().to_numpy()
    chunks = flat[np.repeat(same, counts)].reshape(same.sum(), k, h, a)
    values = table["values"].combine_chunks().flatten().to_numpy()
    values = values[np.repeat(same, shapes[:, 3] * shapes[:, 0])].reshape(same.sum(), e, k)
    finite = np.isfinite(chunks).all(axis=(1, 2, 3))
    column = {name: table[name].to_numpy()[same][finite] for name in ("index", "selected", "seed")}
    valued = e > 0 and bool(np.isfinite(values[finite]).all())
    return CandidateTable(
        column["index"], chunks[finite], values[finite] if valued else None, column["selected"], column["seed"]
    )


def _places(
    rows: NDArray[np.int64], episode: NDArray[np.int64], starts: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    return {"index": rows, "episode_index": episode, "frame_index": rows - starts[episode]}


def _lists(values: NDArray[Any]) -> Any:
    """(M, ...) as a column of M flat lists."""
    import pyarrow as pa

    flat = values.reshape(len(values), -1)
    ends = np.arange(len(flat) + 1, dtype=np.int64) * flat.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(flat.ravel()))


def _about(schema: Any) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(_ABOUT, b"{}"))
