"""Sidecars: what is found out later lies beside a data set, and the set is the same with and without it."""

import hashlib
import os

import numpy as np
import pytest
import sample_episodes

from vla_rl.data.cache import build, open_numbers
from vla_rl.data.dataset import DatasetError, fingerprint_of, open_dataset
from vla_rl.data.lerobot import export
from vla_rl.data.sidecars import path_of, read_candidates, read_column, tags, write_column
from vla_rl.record.candidates import Draw, stack
from vla_rl.record.store import EpisodeStore


def drawn(number, k=3, values=True):
    """The draws of an episode, every 4 steps; each number tells episode, step and candidate."""
    rng, out = np.random.default_rng(number), []
    for row in range(0, 12 + 3 * number, 4):
        chunks = rng.normal(size=(k, 5, 6)).astype(np.float32)
        said = rng.normal(size=(2, k)).astype(np.float32) if values else None
        out.append(Draw(row, chunks, said, int(rng.integers(k)), int(rng.integers(1 << 32))))
    return out


def collected(folder, draws):
    with EpisodeStore(folder / "episodes") as store:
        for number, each in enumerate(draws):
            store.append(sample_episodes.columns(number, 12 + 3 * number), sample_episodes.meta(number), stack(each))
    return export(folder / "episodes", folder / "dataset")


def state(root):
    """Every file of a set but its sidecars, to the byte and the nanosecond."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith(("reward_", "candidates"))]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def test_all_candidates_come_back_at_the_frames_where_they_were_drawn(tmp_path):
    draws = [drawn(0), [], drawn(2)]
    table = read_candidates(collected(tmp_path, draws))
    starts = [0, 12, 27]
    expected = [(starts[n] + each.row, each) for n, episode in enumerate(draws) for each in episode]
    assert table.rows.tolist() == [row for row, _ in expected]
    np.testing.assert_array_equal(table.chunks, np.stack([each.chunks for _, each in expected]))
    np.testing.assert_array_equal(table.values, np.stack([each.values for _, each in expected]))
    assert table.selected.tolist() == [each.selected for _, each in expected]
    assert table.seed.tolist() == [each.seed for _, each in expected]
    assert table.first(2).chunks.shape == (len(expected), 2, 5, 6)


def test_a_step_with_fewer_candidates_or_a_broken_one_is_left_out(tmp_path):
    few, broken = drawn(0, k=2)[0], drawn(1)[1]
    broken.chunks[1, 2] = np.nan
    table = read_candidates(collected(tmp_path, [[few, *drawn(0)[1:]], [drawn(1)[0], broken]]))
    assert table.rows.tolist() == [4, 8, 12]
    assert np.isfinite(table.chunks).all()


def test_a_set_without_candidates_has_none_and_without_a_critic_no_values(tmp_path):
    assert read_candidates(collected(tmp_path / "a", [[], []])) is None
    assert read_candidates(collected(tmp_path / "b", [drawn(0, values=False)])).values is None


def test_what_a_killed_writer_left_beside_is_cleared_and_an_older_store_is_read_as_before(tmp_path):
    with EpisodeStore(tmp_path) as store:
        store.append(sample_episodes.columns(0, 12), sample_episodes.meta(0), stack(drawn(0)))
    before = EpisodeStore(tmp_path, readonly=True).digest()
    (tmp_path / "000001.candidates").write_bytes(b"of an episode that was never finished")
    with EpisodeStore(tmp_path) as store:
        assert store.digest() == before
        store.append(sample_episodes.columns(1, 12), sample_episodes.meta(1))
        assert store.candidates(1) == {}
        np.testing.assert_array_equal(store.candidates(0)["row"], [0, 4, 8])
        assert store.digest() != before


def test_damaged_candidates_are_named_and_the_episode_stays_readable(tmp_path):
    with EpisodeStore(tmp_path) as store:
        store.append(sample_episodes.columns(0, 12), sample_episodes.meta(0), stack(drawn(0)))
    os.truncate(tmp_path / "000000.candidates", 200)
    store = EpisodeStore(tmp_path, readonly=True)
    with pytest.raises(ValueError, match=r"episode 0 of .*000000\.candidates"):
        store.candidates(0)
    assert len(store.read(0)[0]["action"]) == 12


def test_a_sidecar_leaves_the_set_its_fingerprint_and_its_cache_alone(png_set, tmp_path):
    before, mark = state(png_set), fingerprint_of(open_dataset(png_set))
    cache = build(png_set, tmp_path, None)
    values = np.arange(len(cache), dtype=np.float32)
    write_column(png_set, "reward", "test", values, cache.starts, {"low": 0.0})
    try:
        assert state(png_set) == before
        assert fingerprint_of(open_dataset(png_set)) == mark
        assert build(png_set, tmp_path, None).root == cache.root
        found, about = read_column(png_set, "reward", "test", len(cache))
        np.testing.assert_array_equal(found, values)
        assert about == {"low": 0.0}
        assert tags(png_set, "reward") == ["test"]
        _lerobot_reads(png_set, len(cache))
    finally:
        path_of(png_set, "reward", "test").unlink()


def _lerobot_reads(root, rows):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    assert len(LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")) == rows


def test_the_fingerprint_of_a_foreign_set_changes_with_its_content_only(png_set, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(png_set, copy)
    (copy / "meta/vla_rl.json").unlink()
    first = fingerprint_of(open_dataset(copy))
    os.utime(next((copy / "data").rglob("*.parquet")))
    (copy / "meta/advantage_x.parquet").write_bytes(b"")
    assert fingerprint_of(open_dataset(copy)) == first
    with next((copy / "data").rglob("*.parquet")).open("ab") as file:
        file.write(b"!")
    assert fingerprint_of(open_dataset(copy)) != first


@pytest.mark.parametrize("name", ["../reward", "a/b", "", "Reward"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="can not name a sidecar"):
        path_of(tmp_path, name)


def test_a_sidecar_of_another_state_of_the_set_is_refused(tmp_path):
    (tmp_path / "meta").mkdir()
    starts = np.array([0, 2, 5])
    write_column(tmp_path, "reward", "a", np.zeros(5, np.float32), starts, {})
    with pytest.raises(DatasetError, match="speaks of 5 frames, the set has 7: make it again"):
        read_column(tmp_path, "reward", "a", 7)
    with pytest.raises(DatasetError, match="no 'reward' of tag 'b'; it has: a"):
        read_column(tmp_path, "reward", "b", 5)
    with pytest.raises(DatasetError, match="needs 5 finite numbers"):
        write_column(tmp_path, "reward", "a", np.full(5, np.nan, np.float32), starts, {})
    with pytest.raises(DatasetError, match="needs 5 finite numbers"):
        write_column(tmp_path, "reward", "a", np.zeros(4, np.float32), starts, {})


def test_the_numbers_alone_are_those_of_the_cache(png_set, tmp_path):
    cache, numbers = build(png_set, tmp_path, None), open_numbers(png_set)
    assert numbers.images == {}
    assert numbers.starts.tolist() == cache.starts.tolist()
    assert numbers.columns.keys() == cache.columns.keys()
    for name, values in numbers.columns.items():
        np.testing.assert_array_equal(values, cache.columns[name])
    assert (numbers.source, numbers.episodes, numbers.names) == (cache.source, cache.episodes, cache.names)
