"""Loading: items a second through the decoded cache, against LeRobotDataset on the same set and the same fields."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

HORIZON, BATCH, FPS, SIZE = 16, 64, 30, 96


def run(quick: bool = False) -> dict[str, Any]:
    """Measure random access to items with two 96x96 cameras, state and a chunk of 16 actions.

    Returns:
        `metrics` with `items_per_s` and `speedup_vs_lerobot` (the images as PNG, our default), the same with `_video`,
        and `batch_ms`; `against` with LeRobot's own figures.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            png, video = (_measure(Path(folder), images, quick) for images in ("png", "video"))
    finally:
        torch.set_num_threads(threads)
    return {
        "metrics": {
            "items_per_s": png["ours"],
            "speedup_vs_lerobot": png["ours"] / png["theirs"],
            "items_per_s_video": video["ours"],
            "speedup_vs_lerobot_video": video["ours"] / video["theirs"],
            "batch_ms": 1e3 * BATCH / png["ours"],
            "cache_build_images_per_s": png["build"],
        },
        "against": {"lerobot": {"items_per_s": png["theirs"], "items_per_s_video": video["theirs"]}},
    }


def _measure(folder: Path, images: Literal["png", "video"], quick: bool) -> dict[str, float]:
    """Items a second of both loaders, and images a second while the cache is built."""
    from vla_rl.data.cache import build
    from vla_rl.data.chunks import ChunkDataset
    from vla_rl.data.lerobot import export

    store = folder / "episodes"
    if not store.exists():
        _fill(store, episodes=4 if quick else 20)
    root = export(store, folder / images, images=images)
    start = time.perf_counter()
    cache = build(root, folder / "cache", SIZE)
    seconds = time.perf_counter() - start
    dataset = ChunkDataset(cache, HORIZON)
    _require_same_items(dataset, root, exact=images == "png")
    return {
        "ours": _ours(dataset, batches=20 if quick else 300),
        "theirs": _theirs(root, items=40 if quick else 300),
        "build": 2 * len(dataset) / seconds,
    }


def _fill(root: Path, episodes: int) -> None:
    """Moving squares on a shaded table, the full action and state columns."""
    from vla_rl.record.store import EpisodeStore

    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    table = np.stack([120 + y // 2, 110 + y // 3, 90 + x // 3], -1).astype(np.uint8)
    with EpisodeStore(root) as store:
        for _ in range(episodes):
            frames = np.repeat(table[None], 100, 0)
            for colour in rng.integers(0, 256, (4, 3)):
                corners = (rng.integers(10, 80, 2) + np.cumsum(rng.integers(-1, 2, (100, 2)), 0)).clip(0, SIZE - 7)
                for frame, (row, column) in zip(frames, corners, strict=True):
                    frame[row : row + 6, column : column + 6] = colour
            columns: dict[str, Any] = {
                c: rng.normal(size=(100, 6)).astype(np.float32) for c in ("action", "observation.state")
            }
            columns |= {"observation.images.front": frames, "observation.images.wrist": frames[::-1].copy()}
            store.append(columns, {"fps": FPS, "instruction": "lift the red cube"})


def _open_theirs(root: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = {"action": [k / FPS for k in range(HORIZON)]}
    return LeRobotDataset("local/bench", root=root, delta_timestamps=deltas, video_backend="pyav")


def _require_same_items(dataset: Any, root: Path, exact: bool) -> None:
    """Both loaders must give the same items, or the comparison means nothing."""
    index = len(dataset) // 3
    ours, item = dataset.batch(np.array([index])), _open_theirs(root)[index]
    for name in ("observation.state", "action", "action_is_pad"):
        if not np.array_equal(ours[name][0].numpy(), item[name].numpy()):
            raise RuntimeError(f"the two loaders differ in '{name}'")
    image = (item["observation.images.front"].numpy() * 255).round()
    if np.abs(ours["observation.images.front"][0].numpy() - image).max() > (0 if exact else 2):
        raise RuntimeError("the two loaders differ in their images")


def _ours(dataset: Any, batches: int) -> float:
    from vla_rl.data.sampler import ChunkSampler

    sampler = ChunkSampler(np.ones(len(dataset)), BATCH)
    dataset.batch(sampler.indices(0))
    start = time.perf_counter()
    for step in range(batches):
        dataset.batch(sampler.indices(step))
    return batches * BATCH / (time.perf_counter() - start)


def _theirs(root: Path, items: int) -> float:
    dataset = _open_theirs(root)
    order = np.random.default_rng(0).permutation(len(dataset))[:items].tolist()
    dataset[order[0]]
    start = time.perf_counter()
    for index in order:
        dataset[index]
    return len(order) / (time.perf_counter() - start)
