"""FeatureStore: what a frozen encoder makes of every frame of a data set, computed once, memory-mapped ever after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.cache import FrameCache, build
from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.dataset import fingerprint_of, open_dataset
from vla_rl.data.decode import Progress
from vla_rl.data.sidecars import CandidateTable, read_candidates
from vla_rl.policy.folder import OWN_TYPE, choose_device, fingerprint, read_config
from vla_rl.policy.layers import features_of
from vla_rl.record.durable import locked, whole_file

_VERSION = 1  # of the layout: another number, another key
_SAVE_EVERY = 20  # batches, between two notes of how far it is
_BATCH = 256

Compute = Callable[[NDArray[np.int64]], Tensor]


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of some frames of a data set.

    Attributes:
        rows: which frames, counted through the set, ascending, (M,).
        values: (M, D) float32, memory-mapped.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Features of one data set under one checkpoint and layer.

    Attributes:
        cache: the data set's frames, at the encoder's resolution.
        data: fingerprint of the data set.
        encoder: folder of the policy whose backbone encodes.
        weights: its fingerprint.
        layer: which of its features (`vla_rl.policy.layers`).
        place: folder of all stores.
        device: where the encoder runs.
    """

    cache: FrameCache
    data: str
    encoder: Path
    weights: str
    layer: str
    place: Path
    device: str

    @classmethod
    def open(
        cls,
        dataset_root: str | Path,
        encoder: str | Path,
        layer: str = "pooled",
        cache_root: str | Path | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> FeatureStore:
        """Open a data set's store; decodes its frames where that was not done yet, and encodes nothing.

        Args:
            dataset_root: folder of a LeRobotDataset v3.
            encoder: folder of a policy of ours.
            layer: name of the features.
            cache_root: where caches live; `$VLA_RL_CACHE`, else `~/.cache/vla_rl`.
            device: "auto", "cpu" or "cuda".
            progress: called with (images done, images) while frames are decoded.

        Raises:
            DatasetError: the data set can not be read.
            ValueError: the encoder is no policy of ours.
        """
        config, folder = read_config(encoder), Path(encoder)
        if config["type"] != OWN_TYPE:
            raise ValueError(
                f"{encoder} is of type '{config['type']}'; features come from a policy of type '{OWN_TYPE}'"
            )
        shapes = {tuple(f["shape"][-2:]) for k, f in config["input_features"].items() if "image" in k}
        if len(shapes) > 1:
            raise ValueError(f"{encoder} sees cameras at several resolutions; a cache has one")
        place = Path(cache_root or os.environ.get("VLA_RL_CACHE") or Path.home() / ".cache/vla_rl")
        cache = build(dataset_root, place, next(iter(shapes), None), progress=progress)
        data = fingerprint_of(open_dataset(dataset_root))
        return cls(cache, data, folder, fingerprint(folder), layer, place / "features", choose_device(device))

    def features(self, stride: int = 1, progress: Progress | None = None) -> FeatureTable:
        """Features of every frame, or of every `stride`-th of an episode.

        Encoded in large batches where they are not there yet; goes on where an interrupted run stopped.

        Args:
            stride: 1 encodes all; a window's length just those frames at which an open-loop policy decides.
            progress: called with (frames done, frames).
        """

        def encode(rows: NDArray[np.int64]) -> Tensor:
            return features_of(self._policy.encode(self._frames.batch(rows)), self.layer)

        rows = self._every(stride)
        return FeatureTable(rows, _kept(self.place / self._key("features", self.layer, stride), rows, encode, progress))

    def candidates(
        self, k: int, stride: int = 0, seed: int = 0, progress: Progress | None = None, *, draw: bool = False
    ) -> CandidateTable:
        """Chunks of the policy at some rows: those recorded with the rollouts, else drawn now, and kept.

        Args:
            k: how many at a row; of recorded ones the first K.
            stride: draw at every `stride`-th frame of an episode; 0 takes the policy's own number of executed steps.
            seed: of the noise; a row's chunks depend on it and the row alone.
            progress: called with (rows done, rows) while they are drawn.
            draw: leave recorded ones aside: they may be another policy's.

        Raises:
            ValueError: fewer than `k` were recorded.
        """
        recorded = None if draw else read_candidates(Path(self.cache.source))
        if recorded is not None:
            if recorded.chunks.shape[1] < k:
                raise ValueError(
                    f"{self.cache.source} has {recorded.chunks.shape[1]} candidates a decision, not {k}: take no more "
                    "than it has (--candidates)"
                )
            return recorded.first(k)

        def draw_some(rows: NDArray[np.int64]) -> Tensor:
            generators = [torch.Generator(self.device).manual_seed(int(s)) for s in _seeds(rows, seed)]
            return self._policy.sample(self._policy.encode(self._frames.batch(rows)), k, generators)

        stride = stride or int(self._policy.config.n_action_steps)
        rows = self._every(stride)
        chunks = _kept(self.place / self._key("candidates", k, stride, seed), rows, draw_some, progress)
        return CandidateTable(rows, chunks, None, np.zeros(len(rows), np.int64), _seeds(rows, seed))

    @cached_property
    def _policy(self) -> Any:
        from vla_rl.policy.modeling_vla_rl import VLAPolicy

        return VLAPolicy.from_pretrained(self.encoder).to(self.device).eval()

    @cached_property
    def _frames(self) -> ChunkDataset:
        cameras = list(self._policy.config.camera_keys.values())
        return ChunkDataset(self.cache, 1, int(self._policy.config.n_obs_steps), cameras=cameras)

    def _every(self, stride: int) -> NDArray[np.int64]:
        """Rows of every `stride`-th frame of each episode."""
        frame = np.arange(len(self.cache)) - np.repeat(self.cache.starts[:-1], np.diff(self.cache.starts))
        return np.flatnonzero(frame % stride == 0)

    def _key(self, *what: str | int) -> str:
        sizes = sorted((name, images.shape[1:3]) for name, images in self.cache.images.items())
        state = json.dumps([_VERSION, self.data, self.weights, sizes, *what])
        return hashlib.sha256(state.encode()).hexdigest()[:32]


def _seeds(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """One seed a row."""
    return np.array([np.random.SeedSequence([seed, row]).generate_state(1)[0] for row in rows.tolist()], np.int64)


def _kept(folder: Path, rows: NDArray[np.int64], compute: Compute, progress: Progress | None) -> NDArray[np.float32]:
    """What `compute` says of every row, memory-mapped from `folder`, after making it where it is not there yet."""
    path = folder / "values.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", "the feature store", wait=True):
            if not path.is_file():
                _fill(path, rows, compute, progress)
    return np.load(path, mmap_mode="r", allow_pickle=False)


@torch.inference_mode()
def _fill(path: Path, rows: NDArray[np.int64], compute: Compute, progress: Progress | None) -> None:
    """Write what `compute` says of every row to a file (len(rows), ...) that appears when it is complete."""
    partial, note = path.with_suffix(".partial.npy"), path.with_suffix(".json")
    done = int(json.loads(note.read_text())["done"]) if note.is_file() and partial.is_file() else 0
    table: Any = np.load(partial, mmap_mode="r+") if done else None
    for number, batch in enumerate(_batches(rows[done:])):
        values = compute(batch).float().cpu().numpy()
        if table is None:
            table = np.lib.format.open_memmap(partial, "w+", np.float32, (len(rows), *values.shape[1:]))
        table[done : done + len(batch)] = values
        done += len(batch)
        if number % _SAVE_EVERY == 0:
            _note(table, note, done)
        if progress is not None:
            progress(done, len(rows))
    table.flush()
    os.replace(partial, path)
    note.unlink(missing_ok=True)


def _note(table: Any, note: Path, done: int) -> None:
    table.flush()
    with whole_file(note) as file:
        file.write(json.dumps({"done": done}).encode())


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
