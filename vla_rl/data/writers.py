"""Two ways to write a LeRobotDataset v3: images as PNG in the Parquet files, or as videos.

LeRobot's own classes write everything under meta/, and the videos. The PNG files that an episode store holds are taken
over as they are: LeRobot's frame-by-frame writer would decode and encode every image, and take ten times as long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_rl.record.schema import Schema

_IMAGES_FOR_STATISTICS = 10  # of each episode and camera
_ROWS = 256  # of a row group: pictures that are held at once


class Writer(Protocol):
    """Adds episodes to a new data set."""

    decoded: bool

    def add(self, columns: Mapping[str, Any], instruction: str) -> None:
        """Add a whole episode: (T, ...) arrays; images as pixels if `decoded`, else as one PNG file a frame.

        Images may be sequences that read them when they are asked for: few are held at once.
        """

    def close(self) -> None:
        """Finish all files; until then the set can not be read."""


def features(schema: Schema, image_dtype: str) -> dict[str, dict[str, Any]]:
    """LeRobot's feature table of a schema; scalars have shape (1,) there."""
    table: dict[str, dict[str, Any]] = {}
    for name, (dtype, shape) in schema.columns.items():
        if name in schema.cameras:
            table[name] = {"dtype": image_dtype, "shape": shape, "names": ["height", "width", "channels"]}
        else:
            table[name] = {"dtype": dtype, "shape": shape or (1,), "names": schema.names.get(name)}
    return table


def _common(schema: Schema, root: Path, image_dtype: str) -> dict[str, Any]:
    """What both of LeRobot's constructors take."""
    return {
        "repo_id": f"local/{root.name}",
        "fps": int(schema.fps) if float(schema.fps).is_integer() else schema.fps,
        "features": features(schema, image_dtype),
        "root": root,
        "robot_type": schema.robot_type or None,
        "use_videos": image_dtype == "video",
    }


class VideoWriter:
    """H.264 with full colour resolution, by LeRobot's own writer."""

    decoded = True

    def __init__(self, schema: Schema, root: Path) -> None:
        _quiet()
        from lerobot.configs.video import RGBEncoderConfig
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        self._dataset = LeRobotDataset.create(
            **_common(schema, root, "video"),
            rgb_encoder=RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", crf=8, preset="veryfast"),
            image_writer_threads=2,  # its streaming encoder is quicker, but drops frames where the encoder falls behind
            video_backend="pyav",
        )
        meta: Any = self._dataset.meta
        meta.save_episode = _told_in_floats(meta.save_episode)

    def add(self, columns: Mapping[str, Any], instruction: str) -> None:
        """Add a whole episode, images as (T, H, W, 3) uint8."""
        rows = {name: values if values.ndim > 1 else values[:, None] for name, values in columns.items()}
        for t in range(len(next(iter(rows.values())))):
            self._dataset.add_frame({**{name: np.asarray(v[t]) for name, v in rows.items()}, "task": instruction})
        self._dataset.save_episode(parallel_encoding=False)

    def close(self) -> None:
        """Finish all files."""
        self._dataset.finalize()


class PngWriter:
    """PNG files inside the Parquet files, taken over from the store unchanged."""

    decoded = False

    def __init__(self, schema: Schema, root: Path) -> None:
        _quiet()
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
        from lerobot.datasets.feature_utils import get_hf_features_from_features

        self._meta = LeRobotDatasetMetadata.create(**_common(schema, root, "image"), metadata_buffer_size=100)
        self._cameras = schema.cameras
        self._features = get_hf_features_from_features(self._meta.features)
        self._place = (0, 0)
        self._file: Any = None

    def add(self, columns: Mapping[str, Any], instruction: str) -> None:
        """Add a whole episode, each camera as a sequence of T files."""
        from lerobot.datasets.compute_stats import compute_episode_stats

        length = len(next(iter(columns.values())))
        self._meta.save_episode_tasks([instruction])
        number, start = self._meta.total_episodes, self._meta.total_frames
        numbers = {name: values for name, values in columns.items() if name not in self._cameras}
        numbers |= self._index(number, start, length, instruction)
        statistics = compute_episode_stats(numbers, self._meta.features)
        statistics |= {camera: _image_statistics(columns[camera]) for camera in self._cameras}
        chunk, file = self._write(numbers, {camera: columns[camera] for camera in self._cameras})
        where = {"data/chunk_index": chunk, "data/file_index": file}
        where |= {"dataset_from_index": start, "dataset_to_index": start + length}
        _told_in_floats(self._meta.save_episode)(number, length, [instruction], statistics, where)

    def close(self) -> None:
        """Finish all files."""
        try:
            self._close_file()
        finally:
            self._meta.finalize()

    def _index(self, number: int, start: int, length: int, instruction: str) -> dict[str, NDArray[Any]]:
        frames = np.arange(length)
        return {
            "timestamp": frames / self._meta.fps,
            "frame_index": frames,
            "episode_index": np.full(length, number),
            "index": start + frames,
            "task_index": np.full(length, self._meta.get_task_index(instruction)),
        }

    def _write(self, numbers: Mapping[str, NDArray[Any]], images: Mapping[str, Sequence[bytes]]) -> tuple[int, int]:
        """Append some rows after others; gives chunk and file number."""
        import datasets
        from lerobot.datasets.utils import update_chunk_file_indices

        numeric = datasets.Features({name: f for name, f in self._features.items() if name in numbers})
        flat = {name: v.reshape(len(v)) if v.shape[1:] == (1,) else v for name, v in numbers.items()}
        table = datasets.Dataset.from_dict(flat, features=numeric).with_format("arrow")[:]
        if self._file is not None and self._path().stat().st_size > self._meta.data_files_size_in_mb * 2**20:
            self._close_file()
            self._place = update_chunk_file_indices(*self._place, self._meta.chunks_size)
        for first in range(0, len(table), _ROWS):
            rows = table.slice(first, _ROWS)
            self._append(rows, first, {name: files[first : first + len(rows)] for name, files in images.items()})
        return self._place

    def _append(self, table: Any, first: int, images: Mapping[str, Sequence[bytes]]) -> None:
        """Append rows with their pictures as one row group; `first` is the number of the first of them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = pa.array([f"frame-{t:06d}.png" for t in range(first, first + len(table))])
        for name, files in images.items():
            table = table.append_column(name, pa.StructArray.from_arrays([pa.array(files), paths], ["bytes", "path"]))
        table = table.select(list(self._features)).cast(self._features.arrow_schema)
        if self._file is None:
            self._path().parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(self._path(), table.schema, compression="snappy")
        self._file.write_table(table)

    def _path(self) -> Path:
        chunk, file = self._place
        return self._meta.root / self._meta.data_path.format(chunk_index=chunk, file_index=file)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _image_statistics(files: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """LeRobot's statistics of a camera, (3, 1, 1) each in [0, 1], from some of an episode's images."""
    import cv2
    from lerobot.datasets.compute_stats import get_feature_stats

    chosen = np.unique(np.linspace(0, len(files) - 1, _IMAGES_FOR_STATISTICS).astype(int))
    images = [np.asarray(cv2.imdecode(np.frombuffer(files[i], np.uint8), cv2.IMREAD_COLOR)) for i in chosen]
    rgb = np.moveaxis(np.stack(images)[..., ::-1], -1, 1)
    stats = get_feature_stats(rgb, axis=(0, 2, 3), keepdims=True)
    return {key: value if key == "count" else np.squeeze(value / 255.0, axis=0) for key, value in stats.items()}


def _told_in_floats(save: Callable[..., None]) -> Callable[..., None]:
    """LeRobot's `save_episode` with statistics as floats.

    Those of an episode of a single row are as its numbers are, of all others floats, and Arrow has no column of both.
    """

    def saved(number: int, length: int, tasks: list[str], statistics: Mapping[str, Any], where: dict[str, Any]) -> None:
        floats = {
            name: {key: v if key == "count" else np.asarray(v, np.float64) for key, v in stats.items()}
            for name, stats in statistics.items()
        }
        save(number, length, tasks, floats, where)

    return saved


def _quiet() -> None:
    """Keep LeRobot from reporting on 60 lines that torchcodec finds no FFmpeg: nothing here decodes with it."""
    logging.getLogger("lerobot").setLevel(logging.ERROR)
    import av
    import datasets

    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)
