"""Small synthetic episodes: moving blobs in the full schema, and caches of them without any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.data.cache import FrameCache
from vla_rl.record.store import EpisodeStore

JOINTS = [f"{j}.pos" for j in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")]
TASKS = ("lift the red cube", "push the blue cube")


def blobs(length: int, size: int, phase: float) -> np.ndarray:
    """Three coloured squares that move over a shaded table, (T, size, size, 3) uint8."""
    y, x = np.mgrid[0:size, 0:size] / size
    table = np.stack([120 + 60 * y, 110 + 50 * y, 90 + 40 * x], -1)
    frames = np.repeat(table[None], length, 0)
    for t in range(length):
        for k, colour in enumerate([(200, 30, 30), (30, 180, 40), (220, 200, 30)]):
            cx, cy = 0.3 + 0.2 * k + 0.05 * np.sin(t / 7 + k + phase), 0.5 + 0.1 * np.cos(t / 9 + k)
            frames[t][(abs(x - cx) < 0.05) & (abs(y - cy) < 0.05)] = colour
    return frames.astype(np.uint8)


def columns(number: int, length: int, size: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    front, last = blobs(length, size, number), np.arange(length) == length - 1
    return {
        "observation.images.front": front,
        "observation.images.wrist": front[:, ::-1].copy(),
        "observation.state": rng.normal(size=(length, 6)).astype(np.float32),
        "action": rng.normal(size=(length, 6)).astype(np.float32),
        "policy_action": rng.normal(size=(length, 6)).astype(np.float32),
        "policy_action_valid": rng.random(length) < 0.5,
        "intervention": rng.random(length) < 0.5,
        "next.reward": last.astype(np.float32),
        "next.done": last & (number % 3 != 2),
        "next.truncated": last & (number % 3 == 2),
        "next.success": last & (number % 3 != 2),
        "chunk.index": np.arange(length) // 8,
        "chunk.value": rng.random(length).astype(np.float32),
        "chunk.selected": rng.integers(-1, 8, length),
        "stamp_ns": 1_700_000_000_000_000_001 + np.arange(length) * 33_333_333,
        "labels.points": rng.normal(size=(length, 6)).astype(np.float32),
    }


def meta(number: int) -> dict[str, Any]:
    failed = number % 3 == 2
    return {
        "fps": 30,
        "instruction": TASKS[number % 2],
        "task": TASKS[number % 2].split()[0],
        "seed": number // 2,
        "outcome": "failure" if failed else "success",
        "termination": "time_limit" if failed else "success",
        "robot_type": "so101",
        "names": {"action": JOINTS, "observation.state": JOINTS},
        "units": {"action": ["deg"] * 5 + ["percent"]},
    }


def fill(root: Path, episodes: int = 5, first: int = 0, size: int = 32) -> Path:
    with EpisodeStore(root) as store:
        for number in range(first, first + episodes):
            store.append(columns(number, 12 + 3 * number, size), meta(number))
    return root


def memory_cache(lengths: list[int], seed: int = 0, tasks: tuple[str, ...] = TASKS, size: int = 4) -> FrameCache:
    """A FrameCache of random content, as `build` would give it."""
    rng, rows = np.random.default_rng(seed), sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    return FrameCache(
        root=Path("memory"),
        source=f"set{seed}",
        fps=30.0,
        images={"observation.images.front": rng.integers(0, 256, (rows, size, size, 3), np.uint8)},
        columns={
            "observation.state": rng.normal(size=(rows, 6)).astype(np.float32),
            "action": rng.normal(size=(rows, 3)).astype(np.float32),
            "policy_action": rng.normal(size=(rows, 3)).astype(np.float32),
            "policy_action_valid": rng.random(rows) < 0.5,
            "labels.points": rng.normal(size=(rows, 6)).astype(np.float32),
            "next.reward": rng.random(rows).astype(np.float32),
            "task_index": episode % len(tasks),
        },
        names={"action": ["a", "b", "c"], "observation.state": JOINTS},
        tasks=tasks,
        starts=np.cumsum([0, *lengths]),
        episodes=tuple({"episode_index": e, "instruction": tasks[e % len(tasks)]} for e in range(len(lengths))),
        robot_type="so101",
        action_spec={},
    )
