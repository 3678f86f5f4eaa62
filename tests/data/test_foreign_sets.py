"""Data sets that LeRobot's tools wrote: other names, other columns, other rates, other images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_rl.data.cache import build, open_numbers
from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.dataset import DatasetError, open_dataset
from vla_rl.data.inspect import check, info


def write(
    root: Path, features: dict[str, Any], frames: list[list[dict[str, Any]]], fps: int = 10, **options: Any
) -> Any:
    """A set written by LeRobot's own writer and read back by its own reader."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    videos = any(f["dtype"] == "video" for f in features.values())
    dataset = LeRobotDataset.create("local/x", fps, features, root=root, use_videos=videos, **options)
    for episode in frames:
        for frame in episode:
            dataset.add_frame(dict(frame))
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return LeRobotDataset("local/x", root=root, video_backend="pyav")


def picture(t: int) -> np.ndarray:
    ramp = np.mgrid[0:48, 0:64].sum(0)[..., None] + np.array([3 * t, 40, 90])
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_set_like_pusht_is_read_as_lerobot_reads_it(kind: str, tmp_path: Path) -> None:
    features = {
        "observation.image": {"dtype": kind, "shape": (48, 64, 3), "names": ["height", "width", "channel"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": {"motors": ["motor_0", "motor_1"]}},
        "observation.environment_state": {"dtype": "float32", "shape": (2, 3), "names": None},
        "action": {"dtype": "float64", "shape": (2,), "names": {"motors": ["motor_0", "motor_1"]}},
        "note": {"dtype": "string", "shape": (1,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    }
    rng = np.random.default_rng(0)
    frames = [
        [
            {
                "observation.image": picture(t),
                "observation.state": rng.normal(size=2).astype(np.float32),
                "observation.environment_state": rng.normal(size=(2, 3)).astype(np.float32),
                "action": rng.normal(size=2),
                "note": f"n{t}",
                "next.reward": rng.random(1).astype(np.float32),
                "task": "push the T",
            }
            for t in range(length)
        ]
        for length in (7, 4)
    ]
    theirs = write(tmp_path / "set", features, frames)
    assert check(tmp_path / "set", fps=10) == []
    cache = build(tmp_path / "set", tmp_path / "caches", None)
    assert cache.names["action"] == ["motor_0", "motor_1"]
    for row in range(11):
        item = theirs[row]
        for name in ("observation.state", "observation.environment_state", "action", "next.reward"):
            assert np.array_equal(cache.columns[name][row], item[name].numpy().astype(np.float32)), name
        image = (item["observation.image"].numpy() * 255).round().transpose(1, 2, 0)
        assert np.array_equal(cache.images["observation.image"][row], image)
    batch = ChunkDataset(cache, 3).batch(np.array([6, 8]))
    assert batch["observation.image"].shape == (2, 3, 48, 64)
    assert batch["observation.environment_state"].shape == (2, 2, 3)
    assert batch["action_is_pad"].tolist() == [[False, True, True], [False, False, False]]
    assert batch["task"] == ["push the T"] * 2


def test_videos_over_several_files_are_put_together(tmp_path: Path) -> None:
    features = {
        "observation.images.top": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["x"]},
    }
    frames = [
        [
            {
                "observation.images.top": picture(9 * e + t),
                "action": np.array([e + t / 8], np.float32),
                "task": f"task {e}",
            }
            for t in range(5)
        ]
        for e in range(4)
    ]
    theirs = write(tmp_path / "set", features, frames, 20, video_files_size_in_mb=0.001, data_files_size_in_mb=0.001)
    assert len(list((tmp_path / "set/videos").rglob("*.mp4"))) > 1
    assert check(tmp_path / "set") == []
    cache = build(tmp_path / "set", tmp_path / "caches", None)
    for row in range(20):
        image = (theirs[row]["observation.images.top"].numpy() * 255).round().transpose(1, 2, 0)
        assert np.array_equal(cache.images["observation.images.top"][row], image)
        assert cache.columns["action"][row] == theirs[row]["action"].numpy()
    assert [e["instruction"] for e in cache.episodes] == [f"task {e}" for e in range(4)]


def test_instructions_may_change_within_an_episode(tmp_path: Path) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    }
    zeros = np.zeros(2, np.float32)
    frames = [[{"observation.state": zeros, "action": zeros, "task": text} for text in ("open", "open", "close")]]
    write(tmp_path / "set", features, frames)
    dataset = ChunkDataset(build(tmp_path / "set", tmp_path / "caches"), 2)
    assert dataset.batch(np.arange(3))["task"] == ["open", "open", "close"]
    assert dataset.cameras == []
    assert info(tmp_path / "set")["outcomes"] == {"unknown": 1}


def test_a_set_without_actions_can_be_cached_but_not_trained_on(tmp_path: Path) -> None:
    features = {"observation.state": {"dtype": "float32", "shape": (2,), "names": None}}
    write(tmp_path / "set", features, [[{"observation.state": np.ones(2, np.float32), "task": "look"}]])
    assert check(tmp_path / "set")[0].startswith("feature 'action' is missing; there are: ")
    with pytest.raises(DatasetError, match=r"lacks action; it has: .*observation\.state"):
        ChunkDataset(build(tmp_path / "set", tmp_path / "caches"))
    with pytest.raises(DatasetError, match="no column 'action'"):
        open_dataset(tmp_path / "set").columns(["action"])


def test_a_single_joint_is_a_vector_of_one_number(tmp_path: Path) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (1,), "names": ["joint.pos"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["joint.pos"]},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    }
    row = {"next.reward": np.ones(1, np.float32), "task": "turn"}
    numbers = [np.full(1, t, np.float32) for t in range(5)]
    write(tmp_path / "set", features, [[{"observation.state": n, "action": n, **row} for n in numbers]])
    for cache in (build(tmp_path / "set", tmp_path / "cache"), open_numbers(tmp_path / "set")):
        chunks = ChunkDataset(cache, horizon=3)
        assert (chunks.state_dim, chunks.action_dim) == (1, 1)
        batch = chunks.batch(np.array([0, 3]))
        assert batch["observation.state"].tolist() == [[0.0], [3.0]]
        assert batch["action"].tolist() == [[[0.0], [1.0], [2.0]], [[3.0], [4.0], [4.0]]]
        assert cache.columns["next.reward"].shape == (5,)
