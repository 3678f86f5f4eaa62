"""info and check: a healthy set has no problems, and a sick one has all of them listed at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_episodes import JOINTS

from vla_rl.data.inspect import check, info

FRONT = "observation.images.front"


@pytest.fixture
def sick(video_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(video_set, tmp_path / "set"))


def change_info(root: Path, **values: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_column(root: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    values = np.array(table[name].to_pylist())
    change(values)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, table.schema.field(name), pa.array(values.tolist(), table[name].type)), path)


def change_episodes(root: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    path = next((root / "meta/episodes").rglob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), path)


def setter(row: int, value: Any) -> Callable[[np.ndarray], None]:
    return lambda values: values.__setitem__(row, value)


@pytest.mark.parametrize("kind", ["png", "video"])
def test_what_we_write_has_no_problems(kind: str, request: pytest.FixtureRequest) -> None:
    assert check(request.getfixturevalue(f"{kind}_set"), fps=30, joint_names=JOINTS) == []


def test_info_says_what_is_in_it(video_set: Path) -> None:
    about = info(video_set)
    assert (about["episodes"], about["frames"], about["fps"]) == (5, 90, 30.0)
    assert (about["shortest"], about["longest"], about["seconds"]) == (12, 24, 3.0)
    assert about["outcomes"] == {"success": 4, "failure": 1}
    assert about["cameras"][FRONT] == [32, 32, 3]
    assert about["features"]["action"]["names"] == JOINTS
    assert about["bytes"] > 1000
    json.dumps(about)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda r: change_info(r, total_frames=91), "meta/info.json says total_frames 91, found are 90"),
        (lambda r: change_info(r, total_episodes=4), "meta/info.json says total_episodes 4, found are 5"),
        (lambda r: change_column(r, "action", setter(15, np.nan)), "column 'action' has 1 frames that are not finite"),
        (lambda r: change_column(r, "timestamp", setter(13, 9.0)), "episode 1: timestamp does not advance by 1/30 s"),
        (lambda r: change_column(r, "frame_index", setter(13, 7)), "episode 1: frame_index does not count 0, 1, 2"),
        (lambda r: change_column(r, "stamp_ns", setter(13, 0)), "episode 1: stamp_ns does not increase"),
        (
            lambda r: change_column(r, "next.done", setter(13, True)),
            "episode 1: next.done is set before the last frame",
        ),
        (lambda r: change_column(r, "next.done", setter(44, True)), "episode 2: a time limit is marked as a terminal"),
        (lambda r: change_column(r, "task_index", setter(13, 99)), "episode 1: no instruction"),
        (
            lambda r: change_column(r, "episode_index", setter(11, 1)),
            "episode 0: meta/episodes says 12 frames, the files have 11",
        ),
        (
            lambda r: change_episodes(r, lambda e: e[:2] + e[3:]),
            r"meta/episodes is not 0, 1, 2, ...: missing are \[2\]",
        ),
        (lambda r: change_episodes(r, lambda e: e[:2] + e[3:]), r"frames of episodes .* does not list: \[2\]"),
        (lambda r: change_episodes(r, lambda e: e[:2] + e[3:]), "file-000.mp4 has 90 frames, its episodes have 72"),
        (lambda r: shutil.rmtree(r / "videos" / FRONT), "file-000.mp4 is missing"),
        (lambda r: next((r / "videos").rglob("*.mp4")).write_bytes(b"not a video"), "file-000.mp4 can not be read"),
        (lambda r: shutil.rmtree(r / "data"), "has no data/"),
        (lambda r: shutil.rmtree(r / "meta"), "not a LeRobot data set"),
    ],
)
def test_every_harm_is_named(sick: Path, harm: Callable[[Path], None], problem: str) -> None:
    harm(sick)
    import re

    found = check(sick, fps=30, joint_names=JOINTS)
    assert any(re.search(problem, line) for line in found), found
    assert all("\n" not in line for line in found)


def test_what_is_expected_but_not_there_is_named(video_set: Path) -> None:
    found = check(video_set, fps=20, joint_names=JOINTS[::-1], required=("action", "observation.images.top"))
    assert len(found) == 4
    assert "feature 'observation.images.top' is missing; there are: action, chunk.index" in found[0]
    assert found[1] == "fps is 30, 20 is expected"
    assert found[2].startswith("'action' has the joints ['shoulder_pan.pos'")


def test_all_problems_come_at_once(sick: Path) -> None:
    change_column(sick, "action", setter(15, np.inf))
    change_column(sick, "timestamp", setter(40, 9.0))
    change_info(sick, total_frames=7)
    shutil.rmtree(sick / "videos" / FRONT)
    assert len(check(sick, fps=50)) >= 5


def test_a_frame_without_its_picture_is_named(png_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(png_set, tmp_path / "set"))
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    cells = table[FRONT].to_pylist()
    cells[3], cells[7] = None, {"bytes": None, "path": "elsewhere.png"}
    place = table.column_names.index(FRONT)
    holed = table.set_column(place, table.schema.field(FRONT), pa.array(cells, table[FRONT].type))
    pq.write_table(holed, path, row_group_size=10)
    assert check(root, fps=30) == [f"data/chunk-000/file-000.parquet has no image of '{FRONT}' in 2 frames"]
    (root / "elsewhere.png").write_bytes(b"a picture beside the table")
    assert check(root, fps=30) == [f"data/chunk-000/file-000.parquet has no image of '{FRONT}' in 1 frames"]
