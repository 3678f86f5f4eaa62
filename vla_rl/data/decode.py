"""Images of a data set in one pass: every video and every Parquet file is read once, from start to end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.data.dataset import Dataset, DatasetError
from vla_rl.observe.image import resize

Progress = Callable[[int, int], None]
_Job = Callable[[Callable[[int], None]], None]


def decode(
    dataset: Dataset,
    out: Mapping[str, NDArray[np.uint8]],
    index: Mapping[str, NDArray[Any]],
    workers: int = 2,
    progress: Progress | None = None,
) -> None:
    """Decode and resize the images of the cameras in `out`.

    Args:
        dataset: where from.
        out: camera to (N, H, W, 3) uint8, written in place.
        index: the columns `episode_index` and `timestamp`, (N,).
        workers: threads; decoding and resizing leave Python's lock.
        progress: called with (images done, images).

    Raises:
        DatasetError: an image is missing or can not be decoded, by file.
    """
    total, count = sum(len(images) for images in out.values()), 0

    def done(images: int) -> None:
        nonlocal count
        count += images
        if progress is not None:
            progress(count, total)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(job, done) for camera in out for job in _jobs(dataset, camera, out[camera], index)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _jobs(dataset: Dataset, camera: str, out: NDArray[np.uint8], index: Mapping[str, NDArray[Any]]) -> Iterator[_Job]:
    if dataset.features[camera]["dtype"] == "image":
        starts = np.cumsum([0, *dataset.rows])
        for path, start in zip(dataset.data_files, starts, strict=False):
            yield partial(_from_parquet, dataset, path, camera, out[start:])
        return
    for path, times, rows in _by_video(dataset, camera, index):
        yield partial(_from_video, path, times, rows, out, dataset.fps)


def _from_parquet(
    dataset: Dataset, path: Path, camera: str, out: NDArray[np.uint8], done: Callable[[int], None]
) -> None:
    import pyarrow.parquet as pq

    row = 0
    for batch in pq.ParquetFile(path).iter_batches(128, columns=[camera]):
        for cell in batch[camera].to_pylist():
            data = cell.get("bytes") if cell else None
            if data is None and cell and cell.get("path"):
                data = dataset.inside(dataset.root / cell["path"]).read_bytes()
            out[row] = resize(_image(data, f"{path}: row {row} of '{camera}'"), (out.shape[1], out.shape[2]))
            row += 1
        done(len(batch))


def _image(data: bytes | None, where: str) -> NDArray[np.uint8]:
    """RGB pixels of an encoded image."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DatasetError(f"{where} is not an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _by_video(
    dataset: Dataset, camera: str, index: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[Path, NDArray[np.float64], NDArray[np.int64]]]:
    """For each video file: times of the frames wanted [s], ascending, and the rows they belong to."""
    times: dict[Path, list[NDArray[np.float64]]] = defaultdict(list)
    rows: dict[Path, list[NDArray[np.int64]]] = defaultdict(list)
    order = np.argsort(index["episode_index"], kind="stable")
    for episode in dataset.episodes:
        number = int(episode["episode_index"])
        bounds = np.searchsorted(index["episode_index"], [number, number + 1], sorter=order)
        own = order[bounds[0] : bounds[1]]
        path, start = dataset.video(camera, episode)
        rows[path].append(own)
        times[path].append(start + index["timestamp"][own].astype(np.float64))
    for path in times:
        wanted, own = np.concatenate(times[path]), np.concatenate(rows[path])
        ascending = np.argsort(wanted, kind="stable")
        yield path, wanted[ascending], own[ascending]


def _from_video(
    path: Path,
    times: NDArray[np.float64],
    rows: NDArray[np.int64],
    out: NDArray[np.uint8],
    fps: float,
    done: Callable[[int], None],
) -> None:
    """Decode one file from its start to the last frame wanted."""
    import av

    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    filled = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                until = int(np.searchsorted(times, float(frame.time or 0.0) + 0.5 / fps))
                if until > filled:
                    image = resize(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), (out.shape[1], out.shape[2]))
                    out[rows[filled:until]] = image
                    done(until - filled)
                    filled = until
                if filled == len(times):
                    break
    except av.error.FFmpegError as error:
        raise DatasetError(f"{path} can not be decoded: {error}") from error
    if filled < len(times):
        missing = f"{len(times) - filled} of {len(times)} frames are missing"
        raise DatasetError(f"{path} ends before {times[filled]:.3f} s: {missing}")
