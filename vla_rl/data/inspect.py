"""What is in a data set, and everything that is wrong with it, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.dataset import INDEX_COLUMNS, Dataset, DatasetError, open_dataset

_Columns = dict[str, NDArray[Any]]


def info(root: str | Path) -> dict[str, Any]:
    """Summary of a data set, JSON-ready.

    Raises:
        DatasetError: `root` is not a LeRobotDataset v3.
    """
    dataset = open_dataset(root)
    lengths = [int(e["length"]) for e in dataset.episodes]
    return {
        "root": str(dataset.root),
        "robot_type": dataset.info.get("robot_type") or "",
        "fps": dataset.fps,
        "episodes": len(lengths),
        "frames": sum(lengths),
        "seconds": round(sum(lengths) / dataset.fps, 3),
        "shortest": min(lengths, default=0),
        "longest": max(lengths, default=0),
        "cameras": {c: list(dataset.features[c]["shape"]) for c in dataset.cameras},
        "features": {
            name: {"dtype": f["dtype"], "shape": list(f["shape"]), "names": dataset.names(name)}
            for name, f in dataset.features.items()
        },
        "tasks": list(dataset.tasks),
        "outcomes": dict(Counter(str(m.get("outcome", "unknown")) for m in dataset.metas)),
        "bytes": sum(p.stat().st_size for p in dataset.root.rglob("*") if p.is_file()),
    }


def check(
    root: str | Path,
    *,
    fps: float | None = None,
    joint_names: Sequence[str] | None = None,
    required: Sequence[str] = ("action",),
) -> list[str]:
    """Every problem of a data set, one line each; an empty list where there is none.

    Args:
        root: folder of a LeRobotDataset v3.
        fps: the rate it must have, if any.
        joint_names: the names that `action` and `observation.state` must have, in this order, if any.
        required: features that must be there.
    """
    try:
        dataset = open_dataset(root)
        columns = dataset.columns([c for c in {*INDEX_COLUMNS, *dataset.numeric} if c in _stored(dataset)])
    except (DatasetError, OSError, ValueError) as error:
        return [str(error)]
    return [
        *_check_features(dataset, fps, joint_names, required),
        *_check_episodes(dataset, columns),
        *_check_time(dataset, columns),
        *_check_values(dataset, columns),
        *_check_flags(columns),
        *_check_images(dataset),
    ]


def check_files(dataset: Dataset) -> list[str]:
    """The part of `check` that asks whether all frames and images of all episodes are there."""
    return [*_check_episodes(dataset, dataset.columns(["episode_index", "task_index"])), *_check_images(dataset)]


def _stored(dataset: Dataset) -> set[str]:
    """Columns that every Parquet file has."""
    import pyarrow.parquet as pq

    if not dataset.data_files:
        raise DatasetError(f"{dataset.root} has no data/*/*.parquet")
    return set.intersection(*(set(pq.read_schema(path).names) for path in dataset.data_files))


def _check_features(
    dataset: Dataset, fps: float | None, joint_names: Sequence[str] | None, required: Sequence[str]
) -> Iterator[str]:
    have = ", ".join(sorted(dataset.features))
    yield from (f"feature '{name}' is missing; there are: {have}" for name in required if name not in dataset.features)
    if not any(name.startswith("observation.") for name in dataset.features):
        yield f"there is no observation; there are: {have}"
    stored = _stored(dataset)
    for name in [*dataset.numeric, *INDEX_COLUMNS]:
        if name not in stored:
            yield f"feature '{name}' is announced in meta/info.json but is not in the files"
    if fps is not None and dataset.fps != fps:
        yield f"fps is {dataset.fps:g}, {fps:g} is expected"
    for name in ("action", "observation.state"):
        if joint_names is not None and name in dataset.features and dataset.names(name) != list(joint_names):
            yield f"'{name}' has the joints {dataset.names(name)}, expected are {list(joint_names)}"


def _check_episodes(dataset: Dataset, columns: _Columns) -> Iterator[str]:
    """Numbers of episodes and frames in meta/info.json, meta/episodes and the files agree, and nothing is left out."""
    numbers = [int(e["episode_index"]) for e in dataset.episodes]
    if numbers != list(range(len(numbers))):
        gaps = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
        yield f"meta/episodes is not 0, 1, 2, ...: missing are {gaps[:10]}"
    for key, found in (("total_episodes", len(numbers)), ("total_frames", sum(dataset.rows))):
        if dataset.info[key] != found:
            yield f"meta/info.json says {key} {dataset.info[key]}, found are {found}"
    if "episode_index" not in columns:
        return
    present, counts = np.unique(columns["episode_index"], return_counts=True)
    rows = dict(zip(present.tolist(), counts.tolist(), strict=True))
    for episode in dataset.episodes:
        number, length = int(episode["episode_index"]), int(episode["length"])
        if rows.pop(number, 0) != length:
            found = int(counts[present == number].sum())
            yield f"episode {number}: meta/episodes says {length} frames, the files have {found}"
    if rows:
        yield f"the files have frames of episodes that meta/episodes does not list: {sorted(rows)[:10]}"
    if np.any(np.diff(columns["episode_index"]) < 0):
        yield "the frames of the episodes are not in ascending order"
    yield from _check_tasks(dataset, columns)


def _check_tasks(dataset: Dataset, columns: _Columns) -> Iterator[str]:
    if "task_index" not in columns:
        return
    tasks = columns["task_index"]
    known = np.array([bool(text.strip()) for text in dataset.tasks] or [False])
    inside = (tasks >= 0) & (tasks < len(known))
    bad = ~inside | ~known[np.where(inside, tasks, 0)]
    for number in np.unique(columns["episode_index"][bad])[:10]:
        yield f"episode {number}: no instruction"


def _check_time(dataset: Dataset, columns: _Columns) -> Iterator[str]:
    """Frames are counted 0, 1, 2, ... in each episode, and time stamps follow them."""
    if not {"episode_index", "frame_index", "timestamp"} <= set(columns):
        return
    numbers, same = columns["episode_index"], np.diff(columns["episode_index"]) == 0
    steps = {
        "frame_index does not count 0, 1, 2, ...": np.diff(columns["frame_index"]) != 1,
        f"timestamp does not advance by 1/{dataset.fps:g} s": np.abs(
            np.diff(columns["timestamp"].astype(np.float64)) - 1.0 / dataset.fps
        )
        > 1e-3,
    }
    if "stamp_ns" in columns:
        steps["stamp_ns does not increase"] = np.diff(columns["stamp_ns"]) <= 0
    for what, wrong in steps.items():
        for number in np.unique(numbers[1:][wrong & same])[:10]:
            yield f"episode {number}: {what}"


def _check_values(dataset: Dataset, columns: _Columns) -> Iterator[str]:
    for name, values in columns.items():
        if values.dtype.kind != "f" or len(values) == 0:
            continue
        wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            place = ", ".join(f"{k[:-6]} {columns[k][row]}" for k in ("episode_index", "frame_index") if k in columns)
            yield f"column '{name}' has {int(wrong.sum())} frames that are not finite, the first in {place}"


def _check_flags(columns: _Columns) -> Iterator[str]:
    """An episode ends at a terminal or a truncation, and neither occurs before its last frame."""
    if "episode_index" not in columns:
        return
    last = np.append(np.diff(columns["episode_index"]) != 0, True)
    numbers = columns["episode_index"]
    for name in ("next.done", "next.truncated"):
        if name in columns:
            for number in np.unique(numbers[columns[name].astype(bool) & ~last])[:10]:
                yield f"episode {number}: {name} is set before the last frame"
    if {"next.done", "next.truncated"} <= set(columns):
        both = columns["next.done"].astype(bool) & columns["next.truncated"].astype(bool)
        for number in np.unique(numbers[both])[:10]:
            yield f"episode {number}: a time limit is marked as a terminal (next.done and next.truncated)"


def _check_images(dataset: Dataset) -> Iterator[str]:
    """Images are there, one for each frame; of videos the containers' frame counts are held against the frames."""
    for camera in dataset.cameras:
        if dataset.features[camera]["dtype"] == "image":
            yield from _check_cells(dataset, camera)
        else:
            yield from _check_videos(dataset, camera)


def _check_cells(dataset: Dataset, camera: str) -> Iterator[str]:
    if camera not in _stored(dataset):
        yield f"camera '{camera}' is announced in meta/info.json but is not in the files"
        return
    for path in dataset.data_files:
        if empty := _without_image(dataset, path, camera):
            yield f"{path.relative_to(dataset.root)} has no image of '{camera}' in {empty} frames"


def _without_image(dataset: Dataset, path: Path, camera: str) -> int:
    """Frames of a file without a picture, neither in it nor beside it; read is only where something is missing."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = [group for group in range(file.num_row_groups) if _lacks(file.metadata.row_group(group), camera)]
        cells = file.read_row_groups(groups, columns=[camera])[camera].to_pylist() if groups else []
    return sum(not _shown(dataset, cell or {}) for cell in cells)


def _lacks(group: Any, camera: str) -> bool:
    """Whether a row group may hold a cell without bytes, by what its own statistics say."""
    columns = [group.column(i) for i in range(group.num_columns)]
    known = [c.statistics for c in columns if c.path_in_schema == f"{camera}.bytes"]
    return not known or any(s is None or not s.has_null_count or s.null_count for s in known)


def _shown(dataset: Dataset, cell: dict[str, Any]) -> bool:
    return bool(cell.get("bytes")) or bool(cell.get("path") and (dataset.root / cell["path"]).is_file())


def _check_videos(dataset: Dataset, camera: str) -> Iterator[str]:
    wanted: Counter[Path] = Counter()
    for episode in dataset.episodes:
        try:
            wanted[dataset.video(camera, episode)[0]] += int(episode["length"])
        except DatasetError as error:
            yield str(error)
    for path, frames in wanted.items():
        found = _frames(path)
        if isinstance(found, str):
            yield found
        elif found != frames:
            yield f"{path.relative_to(dataset.root)} has {found} frames, its episodes have {frames}"


def _frames(path: Path) -> int | str:
    """Frames of a video by its packets, or what keeps them from being counted."""
    import av

    if not path.is_file():
        return f"{path} is missing"
    try:
        with av.open(str(path)) as container:
            frames = sum(packet.size > 0 for packet in container.demux(video=0))
    except av.error.FFmpegError as error:
        return f"{path} can not be read: {error}"
    return frames
