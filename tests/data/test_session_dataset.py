"""A recorded session becomes the data set that collect would write: rows, alignment, flags, candidates, pictures."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "record"))
from session_messages import (
    NAMES,
    PERIOD,
    SPEC,
    START,
    camera,
    chunks,
    joint_states,
    message,
    open_session,
    picture_of,
    split,
    step,
    vector,
)

from vla_rl.cli import main
from vla_rl.data import writers
from vla_rl.data.cache import build, open_numbers
from vla_rl.data.dataset import open_dataset
from vla_rl.data.features import FeatureTable
from vla_rl.data.inspect import check
from vla_rl.data.lerobot import export
from vla_rl.data.rollouts import trajectories
from vla_rl.data.sessions import Files, NoRowsError, Pixels, SessionEpisodes, convert, dataset_of
from vla_rl.data.sidecars import read_candidates
from vla_rl.data.transitions import ChunkTransitions, TransitionConfig
from vla_rl.record import cdr
from vla_rl.record.folder import NotASessionError, SessionFolder
from vla_rl.record.marks import Marks
from vla_rl.record.recorder import Recorder
from vla_rl.types import Outcome

POLICY, HUMAN, RAMP, HOLD = 0, 1, 3, 4
AUTONOMOUS, PAUSED, CORRECTING = 0, 1, 2
TICK = 3_000_000  # control's period begins so long after the cameras' [ns]


def joints(t):
    return 0.001 * np.arange(len(NAMES)) + 0.01 * t


def play(recorder, periods, outcome=Outcome.UNKNOWN, who=lambda t: (POLICY, AUTONOMOUS), late=0, clock=lambda t: 0):
    """An episode at the pace of its stamps: frames and joints at each period's beginning, a step TICK later."""
    recorder.take(message("instruction", cdr.STRING, cdr.string("lift it"), stamped=False))
    recorder.mark(Marks(recording=True, ordinal=recorder.session._next))
    waiting = []
    for t in range(periods):
        now = START + t * PERIOD + clock(t)
        waiting.append((t + late, camera("front", t, now)))
        for _, frame in [each for each in waiting if each[0] <= t]:
            at(recorder, frame, t)
        waiting = [each for each in waiting if each[0] > t]
        at(recorder, joint_states(joints(t), now), t)
        if t % 8 == 0:
            draw(recorder, t, now)
        source, mode = who(t)
        proposed, executed = joints(t) + 0.1, joints(t) + (0.2 if source == HUMAN else 0.1)
        chunk = START + (t - t % 8) * PERIOD + clock(t - t % 8)
        data = step(now + TICK, executed, proposed, source, mode, chunk, 1)
        at(recorder, message("control/step", cdr.JOINT_STATE, data), t)
    recorder.mark(Marks(ordinal=recorder.session.number, outcome=outcome))


def at(recorder, given, t):
    """Give a message as if it had come in period t."""
    recording = recorder.recording
    received = recording._monotonic_ns + t * PERIOD + TICK
    recorder.take(given.__class__(**{**vars(given), "received_ns": received}))


def draw(recorder, t, now):
    k = np.stack([np.tile(joints(t), (4, 1)) + 0.1 * i for i in range(3)])
    seen = {"age/front": 0.0, "seed": float(1000 + t)} | {
        f"state/{n}": v for n, v in zip(NAMES, joints(t), strict=True)
    }
    at(recorder, message("policy/context", cdr.JOINT_STATE, vector(seen, now)), t)
    at(recorder, message("policy/candidates", cdr.TRAJECTORY, chunks(k, now)), t)
    at(recorder, message("steering/chunk", cdr.TRAJECTORY, chunks(k[1:2], now, frame_id="1")), t)
    values = vector({f"candidate_{i}": 0.5 + i for i in range(3)}, now, "1 argmax", [0.1] * 3)
    at(recorder, message("steering/values", cdr.JOINT_STATE, values), t)


def converted(root, **more):
    recorder = Recorder(open_session(root))
    play(recorder, **{"periods": 30, **more})
    recorder.close()
    return convert(SessionFolder(root).episodes()[-1], SPEC, ["front"])


def jpeg(keep):
    """A JPEG of which so many bytes have come."""
    file = cv2.imencode(".jpg", np.zeros((24, 24, 3), np.uint8))[1][:keep]
    return cdr.make(cdr.COMPRESSED, header=cdr.header(START + 5 * PERIOD + 1), format="jpeg", data=file.reshape(-1))


def grey():
    header, data = cdr.header(START + 5 * PERIOD + 1), np.zeros(24 * 24, np.uint8)
    return cdr.make(cdr.IMAGE, header=header, height=24, width=24, encoding="mono8", is_bigendian=0, step=24, data=data)


@pytest.mark.parametrize(
    ("name", "kind", "picture"),
    [
        ("compressed", cdr.COMPRESSED, jpeg(200)),
        ("compressed", cdr.COMPRESSED, jpeg(0)),
        ("image_raw", cdr.IMAGE, grey()),
    ],
    ids=["cut off", "empty", "grey"],
)
def test_a_picture_that_is_none_costs_no_row_and_spoils_no_data_set(tmp_path, monkeypatch, name, kind, picture):
    monkeypatch.setenv("VLA_RL_CACHE", str(tmp_path / "cache"))
    recorder, glitch = Recorder(open_session(tmp_path / "s")), []

    def who(t):
        if t == 5:
            glitch.append(message(f"camera/front/{name}", kind, cdr.encode(picture, kind)))
            at(recorder, glitch[-1], t)
        return POLICY, AUTONOMOUS

    play(recorder, 10, who=who)
    recorder.close()
    assert len(glitch) == 1
    cache = build(dataset_of(tmp_path / "s"))
    assert len(cache) == 10


def test_what_a_stranger_calls_a_chunk_costs_no_episode(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    recorder.take(message("instruction", cdr.STRING, cdr.string("lift it"), stamped=False))
    recorder.mark(Marks(recording=True, ordinal=0))
    recorder.take(camera("front", 0, START))
    for t in range(8):
        recorder.take(joint_states(joints(t), START + t))
        data = step(START + t, joints(t), joints(t), POLICY, AUTONOMOUS, START, 1)
        recorder.take(message("control/step", cdr.JOINT_STATE, data))
    draw(recorder, 0, START)
    stranger = chunks(np.zeros((1, 4, len(NAMES))), START, frame_id="\u00b2")  # a digit to str.isdigit, and to int none
    recorder.take(message("steering/chunk", cdr.TRAJECTORY, stranger))
    recorder.mark(Marks(ordinal=0))
    recorder.close()
    _, meta, drawn = convert(SessionFolder(tmp_path / "s").episodes()[0], SPEC, ["front"])
    assert meta["steps"] == 8
    assert drawn["selected"].tolist() == [0]


def test_no_transition_of_a_critic_reaches_over_a_pause(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    acting, paused = (POLICY, AUTONOMOUS), (HOLD, PAUSED)
    play(recorder, 80, Outcome.SUCCESS, who=lambda t: acting if t < 20 or t >= 60 else paused)
    recorder.close()
    cache = open_numbers(dataset_of(tmp_path / "s"))
    rows = trajectories(cache, FeatureTable(np.arange(len(cache)), np.zeros((len(cache), 2), np.float32)))
    found = ChunkTransitions(rows, TransitionConfig(window=8, gamma=0.97))
    assert len(cache) == 40
    assert not ((found.starts < 20) & (found.following >= 20)).any()
    assert (found.starts >= 20).any()


@pytest.mark.parametrize(("fps", "gap_s", "rows"), [(1.0, 1.0, 16), (1.0, 2.5, 15), (30.0, 0.6, 15)])
def test_a_pause_of_a_slow_policy_is_longer_than_its_own_period(tmp_path, fps, gap_s, rows):
    """At one action a second every period would be a pause, and no transition would be left."""
    recorder = Recorder(open_session(tmp_path / "s"))
    play(recorder, 16, Outcome.FAILURE)
    recorder.close()
    found = open_numbers(dataset_of(tmp_path / "s"))
    stamps = np.arange(16) / fps + np.where(np.arange(16) >= 8, gap_s - 1 / fps, 0.0)
    columns = {**found.columns, "stamp_ns": (stamps * 1e9).astype(np.int64)}
    slow = replace(found, fps=fps, columns=columns)
    numbers = trajectories(slow, FeatureTable(np.arange(16), np.zeros((16, 2), np.float32)))
    assert len(ChunkTransitions(numbers, TransitionConfig(window=1, gamma=0.97))) == rows


def test_a_row_is_what_had_been_seen_proposed_and_executed_at_that_period(tmp_path):
    found, meta, drawn = converted(tmp_path / "s", outcome=Outcome.SUCCESS)
    assert len(found["action"]) == 30
    assert found["observation.state"] == pytest.approx(
        SPEC.to_lerobot(np.stack([joints(t) for t in range(30)])), abs=1e-4
    )
    assert np.array_equal(found["action"], found["policy_action"])
    for t in range(30):
        file = np.frombuffer(found["observation.images.front"][t], np.uint8)
        assert np.array_equal(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], picture_of(t))
    assert found["next.done"].tolist() == found["next.success"].tolist() == [False] * 29 + [True]
    assert not found["next.truncated"].any()
    assert found["next.reward"].tolist() == [0.0] * 29 + [1.0]
    assert np.array_equal(found["chunk.index"], np.arange(30) // 8)
    assert set(found["chunk.selected"]) == {1}
    assert found["chunk.value"] == pytest.approx(1.5)
    assert np.array_equal(found["stamp_ns"], START + np.arange(30) * PERIOD + TICK)
    assert (meta["instruction"], meta["outcome"], meta["termination"]) == ("lift it", "success", "operator")
    assert drawn["row"].tolist() == [0, 8, 16, 24]
    assert drawn["seed"].tolist() == [1000, 1008, 1016, 1024]
    assert drawn["selected"].tolist() == [1] * 4
    assert drawn["values"].shape == (4, 1, 3)
    assert drawn["chunks"][1, 2] == pytest.approx(SPEC.to_lerobot(np.tile(joints(8), (4, 1)) + 0.2), abs=1e-4)


def test_a_correction_is_flagged_from_takeover_to_hand_back_and_holds_are_no_rows(tmp_path):
    def who(t):
        if t < 8:
            return POLICY, AUTONOMOUS
        if t < 10:
            return HOLD, PAUSED
        if t < 12:
            return RAMP, CORRECTING
        return (HUMAN, CORRECTING) if t < 20 else (RAMP if t < 22 else POLICY, AUTONOMOUS)

    found, meta, _ = converted(tmp_path / "s", who=who, outcome=Outcome.FAILURE)
    kept = [t for t in range(30) if t not in (8, 9)]
    assert found["intervention"].tolist() == [10 <= t < 20 for t in kept]
    assert found["policy_action_valid"].all()
    human = found["action"] != pytest.approx(found["policy_action"])
    assert human is True or meta["held_steps"] == 2
    assert (found["next.done"][-1], found["next.success"][-1]) == (True, False)


def test_an_episode_that_nobody_marked_is_cut_short_and_never_a_success(tmp_path):
    found, meta, _ = converted(tmp_path / "s")
    assert meta["outcome"] == "unknown"
    assert found["next.truncated"].tolist() == [False] * 29 + [True]
    assert not found["next.done"].any()
    assert not found["next.success"].any()


def test_a_frame_that_arrives_late_is_the_frame_of_its_capture_all_the_same(tmp_path):
    found, _, _ = converted(tmp_path / "s", late=2)
    for t in range(25):
        file = np.frombuffer(found["observation.images.front"][t], np.uint8)
        assert np.array_equal(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], picture_of(t))


LEAPS = [-3600 * 10**9, -5 * 10**9, -300_000_000, -100_000_000, 5 * 10**9, 3600 * 10**9]


@pytest.mark.parametrize("leap", LEAPS)
def test_when_the_clock_steps_every_draw_stays_with_its_observation(tmp_path, leap):
    _, meta, drawn = converted(tmp_path / "s", periods=64, clock=lambda t: leap if t >= 30 else 0)
    assert drawn["row"].tolist() == list(range(0, 64, 8))
    assert drawn["seed"].tolist() == list(range(1000, 1064, 8))
    assert meta["dropped_draws"] == 0


def test_draws_that_answer_no_row_are_counted(tmp_path):
    _, meta, drawn = converted(tmp_path / "s", who=lambda t: (POLICY, AUTONOMOUS) if t < 24 else (HOLD, PAUSED))
    assert drawn["row"].tolist() == [0, 8, 16]
    assert meta["dropped_draws"] == 1


@pytest.mark.parametrize("leap", LEAPS)
def test_when_the_clock_steps_rows_stay_aligned_and_time_goes_on(tmp_path, leap):
    found, _, _ = converted(tmp_path / "s", clock=lambda t: leap if t >= 15 else 0)
    assert len(found["action"]) == 30
    assert (np.diff(found["stamp_ns"]) > 0).all()
    for t in (14, 15, 16, 29):
        file = np.frombuffer(found["observation.images.front"][t], np.uint8)
        assert np.array_equal(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], picture_of(t))


ENDS = [("success", 60, False), ("failure", 60, False), ("success", 110, True)]


@pytest.mark.parametrize(("outcome", "until", "kept"), ENDS)
def test_a_mark_of_an_end_that_no_row_has_seen_makes_no_row_a_terminal(tmp_path, outcome, until, kept):
    recorder, said = Recorder(open_session(tmp_path / "s")), []
    recorder.take(message("instruction", cdr.STRING, cdr.string("lift it"), stamped=False))
    recorder.mark(Marks(recording=True))
    for t in range(140):
        now = START + t * PERIOD
        for each in (camera("front", t, now), joint_states(joints(t), now))[t >= until :]:
            at(recorder, each, t)
        data = step(now + TICK, joints(t), joints(t), POLICY, AUTONOMOUS, START, 1)
        at(recorder, message("control/step", cdr.JOINT_STATE, data), t)
    recorder.mark(Marks(outcome=Outcome(outcome)))
    recorder.close()
    [(found, meta, _)] = SessionEpisodes(tmp_path / "s", said.append).episodes()
    assert meta["outcome"] == (outcome if kept else "unknown")
    assert (found["next.done"][-1], found["next.truncated"][-1]) == (kept, not kept)
    assert found["next.reward"].any() == found["next.success"].any() == (kept and outcome == "success")
    assert [line.startswith("episode 000000 counts as unknown") for line in said] == [True] * (not kept)


def test_without_a_camera_there_is_no_row_rather_than_an_invented_one(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s", ["front", "wrist"]))
    play(recorder, 10)
    recorder.close()
    with pytest.raises(NoRowsError, match="every camera"):
        convert(SessionFolder(tmp_path / "s").episodes()[0], SPEC, ["front", "wrist"])


def test_the_data_set_is_whole_readable_by_lerobot_and_made_once(tmp_path):
    root = tmp_path / "s"
    recorder = Recorder(open_session(root))
    play(recorder, 20, Outcome.SUCCESS)
    play(recorder, 12)
    recorder.close()
    made = dataset_of(root)
    assert check(made) == []
    dataset = open_dataset(made)
    assert [e["length"] for e in dataset.episodes] == [20, 12]
    assert [m["outcome"] for m in dataset.metas] == ["success", "unknown"]
    table = read_candidates(made)
    assert table is not None
    assert table.rows.tolist() == [0, 8, 16, 20, 28]
    before = (made / "meta/info.json").stat().st_mtime_ns
    assert dataset_of(root) == made
    assert (made / "meta/info.json").stat().st_mtime_ns == before

    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    frame = LeRobotDataset("local/s", root=made)[21]
    assert np.array_equal((frame["observation.images.front"].permute(1, 2, 0).numpy() * 255).round(), picture_of(1))


def test_what_is_damaged_is_left_out_by_name_and_the_rest_is_there(tmp_path):
    root, said = tmp_path / "s", []
    recorder = Recorder(open_session(root))
    for _ in range(3):
        play(recorder, 10)
    recorder.close()
    content = bytearray((root / "000001.mcap").read_bytes())
    content[len(content) // 2] ^= 4
    (root / "000001.mcap").write_bytes(content)
    made = dataset_of(root, said.append)
    assert len(open_dataset(made).episodes) == 2
    assert len(said) == 1
    assert said[0].startswith("episode 000001 is left out")


def recorded(root, episodes=3):
    recorder = Recorder(open_session(root))
    for _ in range(episodes):
        play(recorder, 10)
    return recorder


def altered(**changes):
    def alter(root):
        path = root / "000001.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return alter


ALTERED = {
    "its file is gone": lambda root: (root / "000001.mcap").unlink(),
    "half of its JSON": lambda root: (root / "000001.json").write_text('{"format": '),
    "no checksum": altered(crc32=None),
    "no such outcome": altered(outcome="sucess"),
    "an outcome that is none": altered(outcome=["success"]),
    "no length": altered(seconds="long"),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_an_episode_that_was_altered_costs_itself_alone_and_is_named_wherever_it_is_read(tmp_path, capsys, alter):
    root, said = tmp_path / "s", []
    recorded(root).close()
    alter(root)
    assert [m["session_episode"] for m in open_dataset(dataset_of(root, said.append)).metas] == [0, 2]
    assert len(said) == 1
    assert "000001" in said[0]
    assert len(SessionFolder(root).problems(thorough=True)) == 1
    assert main(["replay", str(root), "--check"]) == 1
    assert "000001" in capsys.readouterr().out
    assert main(["replay", str(root), "--episode", "1"]) == 1
    assert "000001" in capsys.readouterr().err


def test_the_data_set_follows_what_is_said_of_an_episode_afterwards(tmp_path):
    root = tmp_path / "s"
    recorder = recorded(root, 2)
    assert [m["outcome"] for m in open_dataset(dataset_of(root)).metas] == ["unknown"] * 2
    recorder.mark(Marks(ordinal=1, outcome=Outcome.FAILURE))
    assert [m["outcome"] for m in open_dataset(dataset_of(root)).metas] == ["unknown", "failure"]
    recorder.note("it slipped")
    assert [m["notes"] for m in open_dataset(dataset_of(root)).metas] == [[], ["it slipped"]]
    recorder.mark(Marks(ordinal=1, discarded=True))
    assert [m["session_episode"] for m in open_dataset(dataset_of(root)).metas] == [0]
    recorder.close()


def test_of_a_session_whose_only_episode_was_discarded_no_data_set_is_left(tmp_path):
    recorder = recorded(tmp_path / "s", 1)
    made = dataset_of(tmp_path / "s")
    recorder.mark(Marks(ordinal=0, discarded=True))
    with pytest.raises(ValueError, match="no complete episode"):
        dataset_of(tmp_path / "s")
    assert not made.exists()
    recorder.close()


def test_a_session_of_no_robot_is_refused_in_words(tmp_path):
    recorded(tmp_path / "s", 1).close()
    about = json.loads((tmp_path / "s/session.json").read_text())
    (tmp_path / "s/session.json").write_text(json.dumps({**about, "robot": {}}))
    with pytest.raises(NotASessionError, match=r"session\.json describes no robot: it lacks 'workspace'"):
        dataset_of(tmp_path / "s")


def test_strangers_on_our_topics_are_left_out_of_rows(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    session = recorder.session
    recorder.mark(Marks(recording=True))
    recorder.take(message("joint_states", cdr.JOINT_STATE, vector({"other": 1.0}, START)))
    recorder.take(message("control/step", cdr.JOINT_STATE, vector({"x": 1.0} | split("chunk_stamp", 5), START)))
    recorder.take(message("policy/candidates", cdr.TRAJECTORY, chunks(np.zeros((0, 1, 6)), START)))
    recorder.take(message("human/command", cdr.JOINT_STATE, b"\x00\x01\x00\x00zzz"))
    recorder.mark(Marks())
    play(recorder, 9)
    recorder.close()
    episodes = SessionEpisodes(session.root)
    assert len(episodes) == 2
    assert [len(found["action"]) for found, _, _ in episodes.episodes()] == [9]


def test_pictures_are_read_one_at_a_time_and_come_out_as_they_were(tmp_path):
    found, _, _ = converted(tmp_path / "s")
    files = found["observation.images.front"]
    assert isinstance(files, Files)
    frames = files._frames
    rng = np.random.default_rng(0)
    for row in rng.permutation(30)[:10].tolist():  # in any order
        file = np.frombuffer(files[row], np.uint8)
        assert np.array_equal(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], picture_of(row))
        assert np.array_equal(Pixels(files)[row], picture_of(row))
    assert not any(isinstance(value, bytes) for frame in frames for value in vars(frame).values())
    assert len({id(frame.fetch.func) for frame in frames}) == 1  # one reader, which holds one chunk
    assert files[3:5] == [files[3], files[4]]


def test_an_episode_of_many_row_groups_is_the_same_data_set(tmp_path, monkeypatch):
    recorder = Recorder(open_session(tmp_path / "s"))
    play(recorder, 30)
    recorder.close()
    whole = export(SessionEpisodes(tmp_path / "s"), tmp_path / "whole")
    monkeypatch.setattr(writers, "_ROWS", 7)
    parts = export(SessionEpisodes(tmp_path / "s"), tmp_path / "parts")
    one, two = (pq.read_table(next(root.glob("data/**/*.parquet"))) for root in (whole, parts))
    assert one.equals(two)
    assert pq.ParquetFile(next(parts.glob("data/**/*.parquet"))).num_row_groups == 5


@pytest.mark.parametrize("flags", [["--check", "--episode", "99"], ["--check", "--view"], ["--save", "x.rrd"]])
def test_a_flag_of_replay_that_would_be_ignored_is_refused(tmp_path, flags, capsys):
    recorder = Recorder(open_session(tmp_path / "s"))
    play(recorder, 10)
    recorder.close()
    assert main(["replay", str(tmp_path / "s"), *flags]) == 1
    assert "means nothing beside" in capsys.readouterr().err
