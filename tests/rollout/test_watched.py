"""What a helper would have seen of recorded episodes, and what it would have caught."""

import json

import numpy as np
import pytest

from vla_rl.cli import main
from vla_rl.record.store import EpisodeStore
from vla_rl.robot import arm_spec
from vla_rl.rollout import watched

SPEC = arm_spec("so101")


def played(rng, failed, every=8):
    """Columns, meta and candidates of an episode that succeeds within some 60 steps or never."""
    steps = 240 if failed else int(rng.integers(40, 80))
    joints = SPEC.to_lerobot(rng.normal(0, 0.1, 6) + 0.01 * rng.normal(0, 1, (steps, 6)).cumsum(0))
    columns = {"observation.state": joints.astype(np.float32), "action": joints.astype(np.float32)}
    rows = np.arange(0, steps, every)
    chunks = (joints[rows][:, None, None] + rng.normal(0, 2.0, (len(rows), 4, 16, 6))).astype(np.float32)
    candidates = {"row": rows, "chunks": chunks, "selected": np.zeros(len(rows), int), "seed": np.zeros(len(rows), int)}
    meta = {"fps": 30.0, "task": "toy", "outcome": "failure" if failed else "success", "index": 0, "steps": steps}
    return columns, meta, candidates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("collected"), np.random.default_rng(0)
    with EpisodeStore(root / "episodes") as store:
        for i in range(160):
            store.append(*played(rng, failed=i % 4 == 0))
    return root


def test_an_episode_is_looked_at_where_chunks_were_drawn(folder):
    first = next(watched.episodes(folder, SPEC))
    assert first.failed
    assert first.length_s == 8.0
    assert first.seconds == pytest.approx(np.arange(0, 240, 8) / 30)
    assert first.series[:, 0] == pytest.approx(first.seconds)


def test_how_often_the_critic_was_not_trusted_is_seen_and_calibrated():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        columns, meta, candidates = played(rng, failed=False)
        candidates["abstained"] = rng.random(len(candidates["row"])) < 0.3
        found.append(watched.watched(columns, meta, candidates, SPEC))
        expected = [np.sum(candidates["abstained"][max(i - 9, 0) : i + 1]) / 10 for i in range(len(candidates["row"]))]
        assert found[-1].series[:, 5] == pytest.approx(expected)
    assert "abstained" in watched.calibrate(found, 0.1).signals


def test_failures_that_drag_on_are_caught_in_time_and_successes_left_alone(folder):
    found = list(watched.episodes(folder, SPEC))
    told = watched.coverage(watched.calibrate(found[:80], 0.1), found[80:])
    assert told.caught == 1.0
    assert told.called_s < 4.0
    assert told.left > 0.5
    assert told.false_alarm_ci95[0] <= 0.1 <= told.false_alarm_ci95[1] + 0.1
    assert (told.successes, told.failures) == (60, 20)


def test_the_command_writes_a_calibration_and_says_what_it_catches(folder, tmp_path, capsys):
    out, said = tmp_path / "help.json", tmp_path / "said.json"
    assert main(["calibrate", "--data", str(folder), "--out", str(out), "--json", str(said)]) == 0
    assert json.loads(out.read_text())["false_alarms"] == 0.1
    assert json.loads(said.read_text())["caught"] > 0.8


def test_too_few_successes_and_episodes_without_chunks_are_one_line(folder, tmp_path, capsys):
    assert main(["calibrate", "--data", str(folder), "--out", str(tmp_path / "h"), "--false-alarms", "0.001"]) == 1
    assert "successful episodes, got" in capsys.readouterr().err
    with EpisodeStore(tmp_path / "plain" / "episodes") as store:
        columns, meta, _ = played(np.random.default_rng(1), failed=False)
        store.append(columns, meta)
    assert main(["calibrate", "--data", str(tmp_path / "plain"), "--out", str(tmp_path / "h")]) == 1
    assert "without candidates" in capsys.readouterr().err
