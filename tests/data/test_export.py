"""Store to LeRobotDataset v3: nothing is lost on the way, and LeRobot's own tools read the result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sample_episodes import JOINTS, TASKS, columns, fill
from sample_episodes import meta as meta_of

from vla_rl.data.cache import build
from vla_rl.data.dataset import open_dataset
from vla_rl.data.inspect import check
from vla_rl.data.lerobot import OutputExistsError, export
from vla_rl.data.writers import PngWriter, features
from vla_rl.record.durable import LockedError, locked
from vla_rl.record.store import EpisodeStore

SCRIPTS = Path(sys.executable).parent


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2))))


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["png", "video"])
def test_store_to_lerobot_to_cache_keeps_every_number_and_image(
    kind: str, store: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cache = build(request.getfixturevalue(f"{kind}_set"), tmp_path, size=None)
    for number, (written, meta) in enumerate(EpisodeStore(store, readonly=True)):
        rows = slice(cache.starts[number], cache.starts[number + 1])
        for name, values in written.items():
            if name not in cache.images:
                assert np.array_equal(cache.columns[name][rows], values), name
                assert cache.columns[name].dtype == values.dtype, name
            elif kind == "png":
                assert np.array_equal(cache.images[name][rows], values)
            else:
                assert psnr(cache.images[name][rows], values) > 42
        assert meta.items() <= cache.episodes[number].items()
    assert len(cache) == sum(len(c["action"]) for c, _ in EpisodeStore(store, readonly=True))
    assert cache.names["action"] == JOINTS


@pytest.mark.parametrize(("kind", "lengths"), [("png", (12, 1, 12)), ("png", (1, 1)), ("video", (1, 12))])
def test_an_episode_of_a_single_row_costs_no_data_set(kind, lengths, tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "store") as store:
        for number, length in enumerate(lengths):
            store.append(columns(number, length), meta_of(number))
    made = export(tmp_path / "store", tmp_path / "set", images=kind)
    assert [episode["length"] for episode in open_dataset(made).episodes] == [*lengths]
    assert check(made) == []


@pytest.mark.parametrize("damage", ["{", "[]", "7", ""])
def test_a_damaged_record_of_an_export_is_named(damage, tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "store") as store:
        store.append(columns(0, 3), meta_of(0))
    made = export(tmp_path / "store", tmp_path / "set", images="png")
    (made / "meta/vla_rl.json").write_text(damage)
    with pytest.raises(OutputExistsError, match=r"meta/vla_rl.json|another episode store"):
        export(tmp_path / "store", tmp_path / "set", images="png")


@pytest.mark.parametrize("kind", ["png", "video"])
def test_lerobot_reads_it_at_random(kind: str, request: pytest.FixtureRequest) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = request.getfixturevalue(f"{kind}_set")
    dataset = LeRobotDataset(
        "local/set", root=root, video_backend="pyav", delta_timestamps={"action": [k / 30 for k in range(4)]}
    )
    lengths = [12 + 3 * n for n in range(5)]
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (5, sum(lengths), 30)
    for number, frame in [(4, 20), (0, 11), (2, 3), (3, 0)]:
        item, written = dataset[sum(lengths[:number]) + frame], columns(number, lengths[number])
        assert item["task"] == TASKS[number % 2]
        assert item["stamp_ns"].item() == written["stamp_ns"][frame]
        assert item["next.truncated"].item() == written["next.truncated"][frame]
        chunk = written["action"][np.minimum(np.arange(frame, frame + 4), lengths[number] - 1)]
        assert np.array_equal(item["action"].numpy(), chunk)
        image = (item["observation.images.front"].numpy() * 255).round().transpose(1, 2, 0)
        assert psnr(image, written["observation.images.front"][frame]) > (90 if kind == "png" else 42)


def test_lerobot_dataset_viz_reads_it(png_set: Path, tmp_path: Path) -> None:
    command = [str(SCRIPTS / "lerobot-dataset-viz"), "--repo-id", "local/set", "--root", str(png_set)]
    command += ["--episode-index", "1", "--save", "1", "--output-dir", str(tmp_path), "--num-workers", "0"]
    done = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [p.stat().st_size > 1000 for p in tmp_path.glob("*.rrd")] == [True]


def test_exporting_twice_changes_nothing(store: Path, png_set: Path) -> None:
    before = files(png_set)
    assert export(store, png_set) == png_set
    assert files(png_set) == before


def test_a_longer_store_replaces_the_set(tmp_path: Path) -> None:
    fill(tmp_path / "episodes", 2)
    told: list[tuple[int, int]] = []
    export(tmp_path / "episodes", tmp_path / "set", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    fill(tmp_path / "episodes", 1, first=2)
    export(tmp_path / "episodes", tmp_path / "set")
    assert len(build(tmp_path / "set", tmp_path / "cache", 8).episodes) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "episodes", "set"]


def test_png_sets_are_laid_out_as_lerobots_own_writer_does(store: Path, png_set: Path, tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    episodes = EpisodeStore(store, readonly=True)
    theirs = LeRobotDataset.create("local/x", 30, features(episodes.schema, "image"), tmp_path / "x", "so101", False)
    for written, about in episodes:
        for t in range(len(written["action"])):
            theirs.add_frame({k: np.atleast_1d(v[t]) for k, v in written.items()} | {"task": about["instruction"]})
        theirs.save_episode()
    theirs.finalize()
    one, two = (next((root / "data").rglob("*.parquet")) for root in (png_set, tmp_path / "x"))
    assert pq.read_schema(one).equals(pq.read_schema(two))
    described = [json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"] for path in (one, two)]
    assert described[0] == described[1]
    numbers = [n for n in pq.read_schema(one).names if not n.startswith("observation.images")]
    assert pq.read_table(one, columns=numbers).equals(pq.read_table(two, columns=numbers))
    one, two = (next((root / "meta/episodes").rglob("*.parquet")) for root in (png_set, tmp_path / "x"))
    assert set(pq.read_schema(one).names) == set(pq.read_schema(two).names)
    plain = [n for n in pq.read_schema(one).names if not n.startswith("stats/observation.images")]
    assert pq.read_table(one, columns=plain).equals(pq.read_table(two, columns=plain))
    read = [json.loads((root / "meta/info.json").read_text()) for root in (png_set, tmp_path / "x")]
    assert read[0] == read[1]
    stats = [json.loads((root / "meta/stats.json").read_text()) for root in (png_set, tmp_path / "x")]
    assert stats[0].keys() == stats[1].keys()
    assert np.allclose(*(s["observation.images.front"]["mean"] for s in stats), atol=0.01)


def test_a_large_set_is_spread_over_files(store: Path, png_set: Path, tmp_path: Path) -> None:
    episodes = EpisodeStore(store, readonly=True)
    writer = PngWriter(episodes.schema, tmp_path / "set")
    writer._meta.info.data_files_size_in_mb = 0.01
    for number in range(len(episodes)):
        written, about = episodes.read(number, decode=False)
        writer.add(written, about["instruction"])
    writer.close()
    assert len(list((tmp_path / "set/data").rglob("*.parquet"))) > 1
    one, two = build(png_set, tmp_path / "caches", None), build(tmp_path / "set", tmp_path / "caches", None)
    assert all(np.array_equal(one.columns[name], two.columns[name]) for name in one.columns)
    assert all(np.array_equal(one.images[name], two.images[name]) for name in one.images)


KILLED = """
import os, sys
from vla_rl.data.lerobot import export
export(sys.argv[1], sys.argv[2], progress=lambda done, total: os.kill(os.getpid(), 9) if done == 2 else None)
"""


def test_a_killed_export_leaves_no_half_of_a_set_and_the_next_one_makes_it(store: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(store), str(tmp_path / "set")], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    export(store, tmp_path / "set")
    assert len(build(tmp_path / "set", tmp_path / "cache", 8).episodes) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "set"]


def test_a_folder_with_something_else_is_refused(store: Path, png_set: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputExistsError, match="something else"):
        export(store, tmp_path)
    other = fill(tmp_path / "other", 1)
    with pytest.raises(OutputExistsError, match="another episode store"):
        export(other, png_set)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["letter.txt", "other"]


def test_two_exports_to_one_place_do_not_mix(store: Path, tmp_path: Path) -> None:
    (tmp_path / "set.exporting").mkdir()
    with locked(tmp_path / "set.exporting/.lock", "it"), pytest.raises(LockedError, match="another process"):
        export(store, tmp_path / "set")


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    with pytest.raises(ValueError, match="no finished episode"):
        export(tmp_path / "episodes", tmp_path / "set")
