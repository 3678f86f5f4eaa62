"""Reading any LeRobotDataset v3 from its files: its description, its numeric columns, where its images lie.

Parquet and JSON are read directly: LeRobot's own classes take seconds to import, and ask the Hub when a folder is
incomplete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = "v3.0"
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MARKER = "meta/vla_rl.json"  # which store a set was exported from, and in which state
EPISODES = "meta/vla_rl_episodes.jsonl"  # the episodes' meta, for which LeRobot has no place
_NON_NUMERIC = ("image", "video", "string", "language")


class DatasetError(ValueError):
    """A data set can not be read or does not fit; one line that names the culprit."""


@dataclass(frozen=True)
class Dataset:
    """A LeRobotDataset v3 on disk.

    Attributes:
        root: its folder.
        info: meta/info.json.
        tasks: instruction by task index.
        episodes: one row an episode: meta/episodes without statistics.
        extra: what an export adds in meta/vla_rl.json; empty for other sets.
        metas: the stored meta of each episode, empty dicts for other sets.
    """

    root: Path
    info: Mapping[str, Any]
    tasks: tuple[str, ...]
    episodes: tuple[Mapping[str, Any], ...]
    extra: Mapping[str, Any]
    metas: tuple[Mapping[str, Any], ...]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    @property
    def features(self) -> Mapping[str, Any]:
        """LeRobot's feature table."""
        return self.info["features"]

    @property
    def cameras(self) -> list[str]:
        """Columns that hold colour images; depth maps are left out."""
        images = [name for name, f in self.features.items() if f["dtype"] in ("image", "video")]
        return [name for name in images if not _is_depth(self.features[name])]

    @property
    def numeric(self) -> list[str]:
        """Columns that hold numbers or truth values."""
        return [name for name, feature in self.features.items() if feature["dtype"] not in _NON_NUMERIC]

    def names(self, column: str) -> list[str]:
        """One name a dimension of a column, or an empty list; both of LeRobot's spellings are read."""
        names = self.features[column].get("names") or []
        if isinstance(names, dict):
            names = next((v for v in names.values() if isinstance(v, list)), [])
        return [str(n) for n in names]

    @cached_property
    def data_files(self) -> list[Path]:
        """Parquet files of frames, in order."""
        return sorted((self.root / "data").glob("*/*.parquet"))

    @cached_property
    def rows(self) -> list[int]:
        """Number of frames in each of `data_files`."""
        import pyarrow.parquet as pq

        return [pq.read_metadata(path).num_rows for path in self.data_files]

    def columns(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Numeric columns as (N, ...) arrays: bool, int64 or float32, scalars (N,).

        Raises:
            DatasetError: a column is not in the files, or its rows differ in size.
        """
        import pyarrow.parquet as pq

        wanted = list(names)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted}
        for path in self.data_files:
            present = set(pq.read_schema(path).names)
            missing = [name for name in wanted if name not in present]
            if missing:
                raise DatasetError(f"{path} has no column '{missing[0]}'; it has: {', '.join(sorted(present))}")
            table = pq.read_table(path, columns=wanted)
            for name in wanted:
                parts[name].append(_array(table[name], self._shape(name), f"{path}: column '{name}'"))
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self.features.get(name, {}).get("shape") or ())
        return () if shape == (1,) else shape

    def video(self, camera: str, episode: Mapping[str, Any]) -> tuple[Path, float]:
        """File that holds an episode's frames of a camera, and the time of the first one in it [s].

        Raises:
            DatasetError: the episode table has no entry, or it leads outside the data set.
        """
        try:
            chunk, file = (int(episode[f"videos/{camera}/{key}_index"]) for key in ("chunk", "file"))
            start = float(episode[f"videos/{camera}/from_timestamp"])
        except (KeyError, TypeError):
            raise DatasetError(f"{self.root}: episode {episode['episode_index']} has no video of '{camera}'") from None
        path = self.root / self.info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=file)
        return self.inside(path), start

    def inside(self, path: Path) -> Path:
        """The path itself, refused where it leads out of the data set."""
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DatasetError(f"{self.root} refers to a file outside of it: {path}")
        return path


def open_dataset(root: str | Path) -> Dataset:
    """Read the description of a LeRobotDataset v3.

    Raises:
        DatasetError: `root` is not one.
    """
    root = Path(root)
    if not (root / "meta/info.json").is_file():
        raise DatasetError(f"{root} is not a LeRobot data set: it has no meta/info.json")
    info = _json(root / "meta/info.json")
    version = info.get("codebase_version")
    if version != VERSION:
        raise DatasetError(f"{root} is a LeRobot data set {version}, this reads {VERSION}; LeRobot has a converter")
    missing = [key for key in ("fps", "features", "total_episodes", "total_frames") if key not in info]
    if missing:
        raise DatasetError(f"{root}/meta/info.json lacks: {', '.join(missing)}")
    episodes = _episodes(root)
    extra = _json(root / MARKER) if (root / MARKER).is_file() else {}
    return Dataset(root, info, _tasks(root), episodes, extra, _metas(root, len(episodes)))


def fingerprint_of(dataset: Dataset) -> str:
    """Identity of a set's content, the same wherever it lies and whatever sidecars it has.

    An export is known by the store that it was made from; of any other set all files are read.
    """
    if "digest" in dataset.extra:
        return str(dataset.extra["digest"])
    state = hashlib.sha256()
    for path in sorted(p for sub in ("data", "videos", "meta/episodes") for p in (dataset.root / sub).rglob("*.*")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        state.update(f"{path.relative_to(dataset.root)} {digest}\n".encode())
    return state.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error


def _tasks(root: Path) -> tuple[str, ...]:
    """Instructions in the order of their task index."""
    import pyarrow.parquet as pq

    path = root / "meta/tasks.parquet"
    if not path.is_file():
        return ()
    table = pq.read_table(path).to_pydict()
    texts: list[Any] = next((v for k, v in table.items() if k != "task_index"), [])
    by_index = dict(zip(table["task_index"], texts, strict=True))
    return tuple(str(by_index.get(i, "")) for i in range(max(by_index, default=-1) + 1))


def _episodes(root: Path) -> tuple[Mapping[str, Any], ...]:
    """Rows of meta/episodes, without the statistics."""
    import pyarrow.parquet as pq

    rows: list[Mapping[str, Any]] = []
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        names = [n for n in pq.read_schema(path).names if not n.startswith("stats/")]
        rows += pq.read_table(path, columns=names).to_pylist()
    return tuple(rows)


def _metas(root: Path, count: int) -> tuple[Mapping[str, Any], ...]:
    path = root / EPISODES
    if path.is_file():
        metas = [json.loads(line) for line in path.read_text().splitlines()]
        if len(metas) == count:
            return tuple(metas)
    return tuple({} for _ in range(count))


def _is_depth(feature: Mapping[str, Any]) -> bool:
    info = feature.get("info") or feature.get("video_info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _array(column: Any, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """A pyarrow column of numbers, flat or nested, as (N, *shape)."""
    import pyarrow as pa

    values, rows = column.combine_chunks(), len(column)
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], column.type)
    while not pa.types.is_primitive(values.type):
        values = values.storage if isinstance(values, pa.ExtensionArray) else values.flatten()
    array = values.to_numpy(zero_copy_only=False)
    if array.size != rows * int(np.prod(shape)):
        raise DatasetError(f"{where}: {array.size} values in {rows} rows, {list(shape)} each were announced")
    if array.dtype == object:
        raise DatasetError(f"{where} has empty cells")
    array = array.reshape(rows, *shape)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array if array.dtype == bool else array.astype(np.int64)
