"""The decoded cache: every image of a data set at training resolution, memory-mapped; built once, read often."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.dataset import INDEX_COLUMNS, Dataset, DatasetError, open_dataset
from vla_rl.data.decode import Progress, decode
from vla_rl.data.sidecars import is_sidecar
from vla_rl.record.durable import DiskFullError, is_full, locked, sync_folder

_VERSION = 1  # of the layout below: another number, another key
_VECTORS = ("action", "policy_action")  # besides observations


@dataclass(frozen=True, eq=False)
class FrameCache:
    """A data set as arrays.

    Attributes:
        root: folder of the cache.
        source: folder of the data set it was made from.
        fps: frames per second.
        images: camera column to (N, H, W, 3) uint8.
        columns: numeric column to (N, ...) bool, int64 or float32.
        names: column to one name a dimension.
        tasks: instruction by task index.
        starts: first row of each episode, and N at the end, (E + 1,).
        episodes: stored meta of each episode, with `instruction` and `episode_index` always there.
        robot_type: which robot, "" where the set does not say.
        action_spec: as `ActionSpec.to_dict`, empty where the set does not say.
    """

    root: Path
    source: str
    fps: float
    images: Mapping[str, NDArray[np.uint8]]
    columns: Mapping[str, NDArray[Any]]
    names: Mapping[str, list[str]]
    tasks: tuple[str, ...]
    starts: NDArray[np.int64]
    episodes: tuple[Mapping[str, Any], ...]
    robot_type: str
    action_spec: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of frames."""
        return int(self.starts[-1])


def build(
    dataset_root: str | Path,
    cache_root: str | Path | None = None,
    size: int | tuple[int, int] | None = 96,
    workers: int = 2,
    progress: Progress | None = None,
) -> FrameCache:
    """Open the cache of a data set, after building it where it does not exist yet.

    Built beside its place and renamed when complete: interrupting it, or building it twice at once, does no harm.
    Caches of an earlier state of the same folder are removed.

    Args:
        dataset_root: folder of a LeRobotDataset v3.
        cache_root: where caches live; `$VLA_RL_CACHE`, else `~/.cache/vla_rl`.
        size: side of a square, (height, width), or None for the cameras' own size.
        workers: decoding threads.
        progress: called with (images done, images).

    Raises:
        DatasetError: the data set can not be read.
        DiskFullError: no room for the cache.
    """
    dataset = open_dataset(dataset_root)
    place = Path(cache_root or os.environ.get("VLA_RL_CACHE") or Path.home() / ".cache/vla_rl")
    place.mkdir(parents=True, exist_ok=True)
    folder = place / _key(dataset, size)
    if not folder.is_dir():
        with locked(place / f"{folder.name}.lock", "the cache", wait=True):
            if not folder.is_dir():
                _build(dataset, folder, size, workers, progress)
        (place / f"{folder.name}.lock").unlink(missing_ok=True)
    return replace(open_cache(folder), source=str(dataset.root.resolve()))  # a copy of a set has the same cache


def open_cache(folder: Path) -> FrameCache:
    """Map a finished cache."""
    about = json.loads((folder / "cache.json").read_text())

    def load(kind: str, names: list[str]) -> dict[str, NDArray[Any]]:
        return {n: np.load(folder / kind / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in names}

    return FrameCache(
        root=folder,
        source=about["source"],
        fps=about["fps"],
        images=load("images", about["cameras"]),
        columns=_vectors(load("columns", about["columns"])),
        names=about["names"],
        tasks=tuple(about["tasks"]),
        starts=np.array(about["starts"], np.int64),
        episodes=tuple(about["episodes"]),
        robot_type=about["robot_type"],
        action_spec=about["action_spec"],
    )


def open_numbers(dataset_root: str | Path) -> FrameCache:
    """The numbers of a data set in memory, as a cache without images: for what does not look.

    Raises:
        DatasetError: the data set can not be read.
    """
    dataset = open_dataset(dataset_root)
    columns = dataset.columns(sorted({*dataset.numeric, *INDEX_COLUMNS}))
    starts = _episode_starts(columns["episode_index"], dataset)
    return FrameCache(
        root=dataset.root,
        source=str(dataset.root.resolve()),
        fps=dataset.fps,
        images={},
        columns=_vectors(columns),
        names={name: dataset.names(name) for name in columns if name in dataset.features},
        tasks=dataset.tasks,
        starts=starts,
        episodes=tuple(_episodes(dataset, columns, starts)),
        robot_type=dataset.info.get("robot_type") or "",
        action_spec=dataset.extra.get("action_spec", {}),
    )


def _vectors(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns with what is a vector even where it has one number: (N, 1) actions and observations of a single joint."""
    return {
        name: values[:, None] if values.ndim == 1 and (name in _VECTORS or name.startswith("observation.")) else values
        for name, values in columns.items()
    }


def _key(dataset: Dataset, size: int | tuple[int, int] | None) -> str:
    """Name of a cache: changes with any file of the set but its sidecars, and with the resolution."""
    state = hashlib.sha256(json.dumps([_VERSION, size, dict(dataset.info)], sort_keys=True).encode())
    files = (p for sub in ("data", "meta", "videos") for p in (dataset.root / sub).rglob("*") if p.is_file())
    for path in sorted(p for p in files if not is_sidecar(p, dataset.root)):
        stat = path.stat()
        state.update(f"{path.relative_to(dataset.root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return state.hexdigest()[:32]


def _build(
    dataset: Dataset, folder: Path, size: int | tuple[int, int] | None, workers: int, progress: Progress | None
) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _fill(dataset, partial, size, workers, progress)
        partial.rename(folder)
        sync_folder(folder.parent)
        _remove_stale(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not is_full(error):
            raise
        raise DiskFullError(
            f"no room for the cache of {dataset.root} in {folder.parent}; free some space or set VLA_RL_CACHE"
        ) from error


def _fill(
    dataset: Dataset, partial: Path, size: int | tuple[int, int] | None, workers: int, progress: Progress | None
) -> None:
    names = sorted({*dataset.numeric, *INDEX_COLUMNS})
    columns = dataset.columns(names)
    starts = _episode_starts(columns["episode_index"], dataset)
    for kind in ("images", "columns"):
        (partial / kind).mkdir(parents=True)
    for name, values in columns.items():
        np.save(partial / "columns" / f"{name}.npy", values, allow_pickle=False)
    rows = int(starts[-1])
    shapes = {camera: (rows, *_pixels(dataset, camera, size), 3) for camera in dataset.cameras}
    images = {camera: _allocate(partial / "images" / f"{camera}.npy", shape) for camera, shape in shapes.items()}
    decode(dataset, images, columns, workers, progress)
    for array in images.values():
        array.flush()
    about = {
        "source": str(dataset.root.resolve()),
        "size": list(_pixels(dataset, dataset.cameras[0], size)) if dataset.cameras else [],
        "fps": dataset.fps,
        "cameras": dataset.cameras,
        "columns": names,
        "names": {n: dataset.names(n) for n in names if n in dataset.features},
        "tasks": dataset.tasks,
        "starts": starts.tolist(),
        "episodes": _episodes(dataset, columns, starts),
        "robot_type": dataset.info.get("robot_type") or "",
        "action_spec": dataset.extra.get("action_spec", {}),
    }
    (partial / "cache.json").write_text(json.dumps(about))


def _episode_starts(episode_index: NDArray[np.int64], dataset: Dataset) -> NDArray[np.int64]:
    """Row of each episode's first frame, and the number of rows."""
    if len(episode_index) == 0:
        raise DatasetError(f"{dataset.root} has no frames")
    changes = np.flatnonzero(np.diff(episode_index)) + 1
    starts = np.concatenate([[0], changes, [len(episode_index)]])
    if len(starts) - 1 != len(dataset.episodes):
        raise DatasetError(
            f"{dataset.root}: frames of {len(starts) - 1} episodes, but meta/episodes lists {len(dataset.episodes)}"
        )
    return starts.astype(np.int64)


def _episodes(dataset: Dataset, columns: Mapping[str, NDArray[Any]], starts: NDArray[np.int64]) -> list[dict[str, Any]]:
    tasks, numbers = columns["task_index"][starts[:-1]], columns["episode_index"][starts[:-1]]
    texts = [dataset.tasks[task] if 0 <= task < len(dataset.tasks) else "" for task in tasks]
    return [
        {"instruction": text, **meta, "episode_index": int(number)}
        for text, number, meta in zip(texts, numbers, dataset.metas, strict=True)
    ]


def _pixels(dataset: Dataset, camera: str, size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is not None:
        return (size, size) if isinstance(size, int) else size
    shape, names = dataset.features[camera]["shape"], dataset.features[camera].get("names") or []
    channels_first = "channel" in str(names[0]) if names else shape[0] == 3
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A memory-mapped array whose room on disk is reserved: writing to a map on a full disk would kill the process."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _remove_stale(folder: Path) -> None:
    """Drop caches of earlier states of the same set; a process that has one mapped keeps its pages."""
    new = json.loads((folder / "cache.json").read_text())
    for about in folder.parent.glob("*/cache.json"):
        old = json.loads(about.read_text())
        if about.parent.suffix == "" and about.parent != folder and all(old[k] == new[k] for k in ("source", "size")):
            shutil.rmtree(about.parent, ignore_errors=True)
