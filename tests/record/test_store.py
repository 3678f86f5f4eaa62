"""EpisodeStore: an episode is there whole or not at all."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_rl.record.durable import LockedError
from vla_rl.record.episode_file import DamagedEpisodeError
from vla_rl.record.schema import SchemaError
from vla_rl.record.store import EpisodeStore, NotAStoreError

META = {"fps": 30, "instruction": "lift the red cube"}


def episode(number: int, length: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "observation.images.front": rng.integers(0, 256, (length, 8, 9, 3), np.uint8),
        "observation.state": rng.normal(size=(length, 6)).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
        "stamp_ns": 1_700_000_000_000_000_001 + np.arange(length) * 33_333_333,
    }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k], True) for k in a)


def filled(root: Path, episodes: int = 3) -> list[Path]:
    with EpisodeStore(root) as store:
        for number in range(episodes):
            store.append(episode(number), META | {"seed": number})
    return sorted(root.glob("*.episode"))


arrays = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=2, max_side=4).map(lambda s: (5, *s))),
    hnp.arrays(np.int64, (5,)),
    hnp.arrays(np.bool_, (5, 1)),
    hnp.arrays(np.uint8, st.tuples(st.just(5), st.integers(1, 9), st.integers(1, 9), st.just(3))),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.dictionaries(st.text("abc._", min_size=1, max_size=8), arrays, min_size=1, max_size=4))
def test_what_is_read_is_what_was_appended(tmp_path_factory: pytest.TempPathFactory, columns: dict) -> None:
    root = tmp_path_factory.mktemp("store")
    with EpisodeStore(root / "s") as store:
        store.append(columns, META)
    read, meta = EpisodeStore(root / "s", readonly=True).read(0)
    assert same(read, columns)
    assert meta == META


def test_meta_takes_numpy_numbers_and_gives_plain_ones(tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "s") as store:
        store.append(episode(0), META | {"seed": np.int64(7), "return": np.float32(0.5), "xy": np.zeros(2)})
        assert store.meta(0) == META | {"seed": 7, "return": 0.5, "xy": [0.0, 0.0]}
        with pytest.raises(SchemaError, match="plain JSON"):
            store.append(episode(1), META | {"what": object()})
        with pytest.raises(SchemaError, match="plain JSON"):
            store.append(episode(1), META | {"return": float("nan")})


def test_episodes_keep_their_order_over_many_openings(tmp_path: Path) -> None:
    for number in range(12):
        with EpisodeStore(tmp_path / "s") as store:
            assert store.append(episode(number), META | {"seed": number}) == number
    assert [store.meta(i)["seed"] for i in range(len(store))] == list(range(12))
    assert all(same(columns, episode(i)) for i, (columns, _) in enumerate(store))


def test_kill_at_any_moment_leaves_every_acknowledged_episode(tmp_path: Path) -> None:
    root, rng = tmp_path / "s", random.Random(0)
    acknowledged = 0
    for _ in range(20):
        acknowledged = _append_until_killed(root, rng.uniform(0.0, 0.08), acknowledged)
        store = EpisodeStore(root, readonly=True) if root.exists() else []
        assert len(store) in (acknowledged, acknowledged + 1)  # the last one may be whole but unreported
        acknowledged = len(store)
    assert acknowledged > 20
    assert EpisodeStore(root).damaged() == {}
    assert all(same(columns, episode(meta["seed"], 30)) for columns, meta in EpisodeStore(root))


def _append_until_killed(root: Path, seconds: float, start: int) -> int:
    """Fork a writer that reports each finished episode through a pipe; kill it; give the number that it reported."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        number, store = start, EpisodeStore(root)
        while True:
            store.append(episode(number, 30), META | {"seed": number})
            number += 1
            os.write(writer, b".")
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return start + len(pipe.read())


def test_opening_again_repairs_and_repairing_twice_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    (tmp_path / "s/000003.episode.partial").write_bytes(b"half of it")
    for number in (3, 4):
        with EpisodeStore(tmp_path / "s") as store:
            store.append(episode(number), META)
    assert not list((tmp_path / "s").glob("*.partial"))
    assert len(store) == 5
    assert store.damaged() == {}


def test_truncation_at_every_byte_is_noticed(tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "s") as store:
        for number in range(3):
            store.append(episode(number, 1), META)
    path = tmp_path / "s/000001.episode"
    whole = path.read_bytes()
    for size in range(len(whole)):
        os.truncate(path, size)
        with pytest.raises(DamagedEpisodeError, match=r"episode 1 .*000001\.episode"):
            store.read(1)
        path.write_bytes(whole)
    assert all(same(columns, episode(i, 1)) for i, (columns, _) in enumerate(store))


@pytest.fixture(scope="module")
def damaged_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("flips") / "s"
    return root, filled(root)[1].read_bytes()


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed_and_the_others_stay_readable(
    damaged_store: tuple[Path, bytes], place: float, bit: int
) -> None:
    root, whole = damaged_store
    data = bytearray(whole)
    data[int(place * len(whole))] ^= 1 << bit
    (root / "000001.episode").write_bytes(data)
    store = EpisodeStore(root, readonly=True)
    assert list(store.damaged()) == [1]
    assert "000001.episode" in store.damaged()[1]


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with EpisodeStore(tmp_path / "s") as first:
        first.append(episode(0), META)
        second = EpisodeStore(tmp_path / "s")
        with pytest.raises(LockedError, match="another process"):
            second.append(episode(1), META)
        first.append(episode(1), META)
    assert second.append(episode(2), META) == 2
    second.close()


def test_a_read_only_store_writes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PermissionError, match="read-only"):
        EpisodeStore(tmp_path / "s", readonly=True).append(episode(9), META)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "meta", "message"),
    [
        ({"extra": np.zeros(4, np.float32)}, {}, "column 'extra': the store has none, the episode float32"),
        ({"next.done": None}, {}, "the store has columns that the episode lacks: next.done"),
        ({"observation.state": np.zeros((4, 7), np.float32)}, {}, r"float32\[6\], the episode float32\[7\]"),
        ({}, {"fps": 15}, "fps: the store has 30.0, the episode 15.0"),
        ({}, {"robot_type": "aloha"}, "robot_type: the store has so101, the episode aloha"),
        ({}, {"names": {"action": ["b", "a"]}}, r"names: the store has .*'a', 'b'.*, the episode .*'b', 'a'"),
        ({}, {"units": {"action": ["rad", "rad"]}}, "units: the store has .*deg.*, the episode .*rad"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_with_both_sides_named(
    tmp_path: Path, change: dict, meta: dict, message: str
) -> None:
    fixed = META | {"robot_type": "so101", "names": {"action": ["a", "b"]}, "units": {"action": ["deg", "deg"]}}
    with EpisodeStore(tmp_path / "s") as store:
        store.append(episode(0), fixed)
    columns = {k: v for k, v in (episode(1) | change).items() if v is not None}
    with pytest.raises(SchemaError, match=message), EpisodeStore(tmp_path / "s") as store:
        store.append(columns, fixed | meta)
    assert len(EpisodeStore(tmp_path / "s")) == 1


@pytest.mark.parametrize(
    ("columns", "meta", "message"),
    [
        ({}, META, "one length of at least 1"),
        ({"a": np.zeros((0, 2), np.float32)}, META, "one length of at least 1"),
        ({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}, META, "'a': 2, 'b': 3"),
        ({"a": np.zeros(2)}, META, "float64"),
        ({"a/b": np.zeros(2, np.float32)}, META, "no '/'"),
        ({"a": np.array(["x"])}, META, "dtypes are"),
        ({"a": np.zeros(2, np.float32)}, {}, "fps"),
    ],
)
def test_a_malformed_episode_is_refused_and_leaves_nothing(
    tmp_path: Path, columns: dict, meta: dict, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        EpisodeStore(tmp_path / "s").append(columns, meta)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(NotAStoreError, match=r"thesis\.tex"):
        EpisodeStore(tmp_path)
    with pytest.raises(NotAStoreError, match="no episode store"):
        EpisodeStore(tmp_path / "nowhere", readonly=True)
    (tmp_path / "s").mkdir()
    (tmp_path / "s/store.json").write_text('{"format": "other"}')
    with pytest.raises(NotAStoreError, match="format 'other'"):
        EpisodeStore(tmp_path / "s")


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    filled(tmp_path / "s", 2)
    store = EpisodeStore(tmp_path / "s")
    before = store.digest()
    assert EpisodeStore(tmp_path / "s").digest() == before
    store.append(episode(2), META)
    assert store.digest() != before
