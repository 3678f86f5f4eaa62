"""The decoded cache: same pixels, keyed by content, safe to interrupt."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from vla_rl.data.cache import build
from vla_rl.data.dataset import DatasetError, open_dataset
from vla_rl.observe.image import resize

FRONT = "observation.images.front"


def copy(root: Path, to: Path) -> Path:
    shutil.copytree(root, to)
    return to


def test_images_are_resized_by_the_function_that_inference_uses(png_set: Path, tmp_path: Path) -> None:
    own, small = build(png_set, tmp_path, None), build(png_set, tmp_path, (12, 16))
    for row in (0, 17, len(own) - 1):
        assert np.array_equal(small.images[FRONT][row], resize(own.images[FRONT][row], (12, 16)))


def test_it_is_built_once(png_set: Path, tmp_path: Path) -> None:
    told: list[int] = []
    first = build(png_set, tmp_path, 16, progress=lambda done, total: told.append(total - done))
    assert told[-1] == 0
    assert build(png_set, tmp_path, 16, progress=lambda done, total: told.append(-1)).root == first.root
    assert -1 not in told


def test_another_resolution_or_another_content_is_another_cache(png_set: Path, tmp_path: Path) -> None:
    root, caches = copy(png_set, tmp_path / "set"), tmp_path / "caches"
    old, other = build(root, caches, 16), build(root, caches, 8)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"robot_type": "so100"}))
    new = build(root, caches, 16)
    assert len({old.root, other.root, new.root}) == 3
    assert new.robot_type == "so100"
    assert sorted(p for p in caches.iterdir()) == sorted([other.root, new.root])  # the outdated one is gone


def test_the_same_size_of_videos_gives_what_lerobot_decodes(video_set: Path, tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    cache, theirs = build(video_set, tmp_path, None), LeRobotDataset("local/set", root=video_set, video_backend="pyav")
    for row in (0, 13, 40, len(cache) - 1):
        image = (theirs[row][FRONT].numpy() * 255).round().transpose(1, 2, 0)
        assert np.array_equal(cache.images[FRONT][row], image)


def test_an_interrupted_build_is_done_again(png_set: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(png_set, tmp_path, 16, progress=stop)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
    assert len(build(png_set, tmp_path, 16).episodes) == 5


def test_a_killed_build_is_done_again(png_set: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    child = context.Process(target=build, args=(png_set, tmp_path, 16, 1, kill))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [p.suffix for p in tmp_path.iterdir() if p.is_dir()] == [".partial"]
    assert len(build(png_set, tmp_path, 16).episodes) == 5
    assert not list(tmp_path.glob("*.partial"))


def test_two_processes_at_once_build_one_cache(png_set: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=build, args=(png_set, tmp_path, 16, 1)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1


def test_a_missing_or_short_video_is_named(video_set: Path, tmp_path: Path) -> None:
    root = copy(video_set, tmp_path / "set")
    video = next((root / "videos" / FRONT).rglob("*.mp4"))
    data = video.read_bytes()
    video.unlink()
    with pytest.raises(DatasetError, match=f"{video} is missing"):
        build(root, tmp_path / "caches", 16)
    video.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=str(video)):
        build(root, tmp_path / "caches", 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "meta"), "not a LeRobot data set: it has no meta/info.json"),
        (lambda root: (root / "meta/info.json").write_text("{"), "is not JSON"),
        (lambda root: (root / "meta/info.json").write_text('{"codebase_version": "v2.1"}'), r"v2\.1, this reads v3\.0"),
        (lambda root: (root / "meta/info.json").write_text('{"codebase_version": "v3.0"}'), "lacks: fps, features"),
    ],
)
def test_what_is_not_a_data_set_is_refused(png_set: Path, tmp_path: Path, change: object, message: str) -> None:
    root = copy(png_set, tmp_path / "set")
    change(root)
    with pytest.raises(DatasetError, match=message):
        build(root, tmp_path / "caches")


def test_a_data_set_can_not_lead_outside_itself(video_set: Path, tmp_path: Path) -> None:
    root = copy(video_set, tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"video_path": "../../../etc/{video_key}"}))
    with pytest.raises(DatasetError, match="outside"):
        build(root, tmp_path / "caches")


def test_an_absurd_row_count_allocates_nothing(png_set: Path, tmp_path: Path) -> None:
    root = copy(png_set, tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_frames": 2**40}))
    assert len(build(root, tmp_path / "caches", 16)) == sum(open_dataset(root).rows)
