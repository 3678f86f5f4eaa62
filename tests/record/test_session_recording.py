"""A session: what was given is there, episodes come to what the operator said, and a killed recorder costs little."""

import hashlib
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from session_messages import NAMES, START, camera, joint_states, marked, message, open_session, quick, vector

from vla_rl.record import cdr
from vla_rl.record.durable import DiskFullError, LockedError
from vla_rl.record.folder import NotASessionError, SessionFolder, is_session
from vla_rl.record.marks import LONGEST_NOTE, MOST_NOTES, OUTCOMES, Marks, marks
from vla_rl.record.mcap_file import read
from vla_rl.record.recorder import Recorder
from vla_rl.record.recording import Recording, RecordingConfig
from vla_rl.record.tape import Tape
from vla_rl.types import Outcome


def play(recorder, frames=5, ordinal=0, outcome=1, discarded=0, note=""):
    """An episode as the operator's end would tell it."""
    follow(recorder, marked(1.0, ordinal=ordinal))
    for i in range(frames):
        recorder.take(camera("front", i, START + i))
        recorder.take(joint_states([float(i)] * len(NAMES), START + i))
    follow(recorder, marked(0.0, ordinal=ordinal, outcome=outcome, discarded=discarded, note=note))


def follow(recorder, status, publisher=b"operator"):
    recorder.take(status)
    said = cdr.decode(status.data, cdr.JOINT_STATE)
    recorder.mark(marks(said.name, list(said.position), said.header.frame_id), publisher)


def digests(root):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.glob("*.mcap"))}


def test_every_message_comes_out_as_it_went_in_and_is_counted(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    play(recorder, frames=40, note="well done")
    recorder.close()
    (entry,) = SessionFolder(tmp_path / "s").episodes()
    found = [e for e in read(entry.path) if e.topic == "joint_states"]
    assert [e.stamp_ns for e in found] == [START + i for i in range(40)]
    assert entry.meta["topics"]["camera/front/image_raw"] == {"in": 40, "out": 40, "lost": 0}
    assert (entry.meta["outcome"], entry.meta["notes"], entry.meta["damage"]) == ("success", ["well done"], [])
    assert SessionFolder(tmp_path / "s").problems(thorough=True) == []


def test_an_episode_begins_with_the_newest_of_every_topic_and_what_the_graph_was(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"), about=lambda: json.dumps({"graph": {"policy": {}}}))
    recorder.take(message("instruction", cdr.STRING, cdr.string("old"), stamped=False))
    recorder.take(message("instruction", cdr.STRING, cdr.string("lift the red cube"), stamped=False))
    recorder.take(camera("front", 7, START - 5))
    play(recorder, frames=1)
    recorder.close()
    found = list(read(SessionFolder(tmp_path / "s").episodes()[0].path))
    assert [e.topic for e in found[:3]] == ["session", "instruction", "camera/front/compressed"]
    assert cdr.decode(found[1].data, cdr.STRING).data == "lift the red cube"
    assert found[2].stamp_ns == START - 5


def test_what_becomes_known_of_the_graph_goes_with_the_episode_that_had_begun_before(tmp_path):
    known = {"graph": {"control": {"joining": "latest"}}, "weights": {"policy": ""}}
    recorder = Recorder(open_session(tmp_path / "s"), about=lambda: json.dumps(known))
    play_on = marked(1.0, ordinal=0)
    follow(recorder, play_on)
    recorder.tell()
    known = {"graph": {"control": {"joining": "blend", "rate": 30}, "policy": {"steps": 8}}, "weights": {"policy": "a"}}
    recorder.tell()
    recorder.tell()
    recorder.close()
    path = SessionFolder(tmp_path / "s").episodes()[0].path
    assert [e.topic for e in read(path)].count("session") == 2
    about = Tape.load(path, NAMES).about
    assert about["graph"] == {"control": {"joining": "latest", "rate": 30}, "policy": {"steps": 8}}
    assert about["weights"] == {"policy": "a"}


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_outcome_is_what_was_marked_and_unknown_where_nothing_was(tmp_path, code):
    recorder = Recorder(open_session(tmp_path / "s"))
    play(recorder, outcome=code)
    recorder.close()
    assert SessionFolder(tmp_path / "s").episodes()[0].meta["outcome"] == str(OUTCOMES[code])


def test_of_two_marks_the_later_counts_and_none_does_not_undo_one(tmp_path):
    said = Marks(recording=True, outcome=Outcome.SUCCESS, notes=("a",))
    assert said.then(Marks(outcome=Outcome.FAILURE)).outcome is Outcome.FAILURE
    assert said.then(Marks(notes=("b",))).outcome is Outcome.SUCCESS
    assert said.then(Marks(notes=("b",))).notes == ("a", "b")
    with pytest.raises(ValueError, match="outcome 7"):
        marks(["recording", "outcome"], [1.0, 7.0], "")


def test_a_discarded_episode_is_in_the_trash_until_the_session_closes(tmp_path):
    recorder, root = Recorder(open_session(tmp_path / "s")), tmp_path / "s"
    play(recorder)
    play(recorder, ordinal=1, discarded=1)
    assert sorted(p.name for p in (root / "trash").iterdir()) == ["000001.json", "000001.mcap"]
    assert [e.number for e in recorder.session.episodes()] == [0]
    play(recorder, ordinal=2)  # recorded again, under a number of its own
    assert [e.number for e in recorder.session.episodes()] == [0, 2]
    recorder.close()
    assert not (root / "trash").exists()


def test_what_is_said_of_the_last_episode_afterwards_reaches_it_and_no_other(tmp_path):
    told = []
    recorder, root = Recorder(open_session(tmp_path / "s"), ended=told.append), tmp_path / "s"
    play(recorder)
    play(recorder, ordinal=1)
    follow(recorder, marked(0.0, ordinal=1, outcome=2))
    follow(recorder, marked(0.0, ordinal=1, outcome=2, note="it slipped"))
    follow(recorder, marked(0.0, ordinal=1, outcome=2, note="it slipped"))  # heard again: nothing new
    recorder.note("off the table")
    play(recorder, ordinal=2)
    recorder.close()
    metas = [entry.meta for entry in SessionFolder(root).episodes()]
    assert [meta["outcome"] for meta in metas] == ["success", "failure", "success"]
    assert [meta["notes"] for meta in metas] == [[], ["it slipped", "off the table"], []]
    assert [entry.number for entry in told] == [0, 1, 1, 1, 1, 2]
    assert SessionFolder(root).problems(thorough=True) == []


def test_the_last_episode_can_still_be_discarded_and_so_can_one_whose_recorder_was_killed_over_it(tmp_path):
    recorder, root = Recorder(open_session(tmp_path / "s")), tmp_path / "s"
    play(recorder)
    kept = (root / "000000.json").read_bytes()
    follow(recorder, marked(0.0, outcome=1, discarded=1))
    follow(recorder, marked(0.0, outcome=1, discarded=1, note="the lamp fell"))
    assert recorder.session.episodes() == []
    assert json.loads((root / "trash/000000.json").read_text())["notes"] == ["the lamp fell"]
    (root / "000000.json").write_bytes(kept)  # killed when the file had gone and its JSON had not
    recorder.session._resources.close()
    session = open_session(root)
    assert (session.episodes(), session.problems()) == ([], [])
    session.close()


def test_a_note_before_the_first_episode_is_refused_and_goes_to_no_later_one(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    with pytest.raises(ValueError, match="about none"):
        recorder.note("hello")
    play(recorder)
    assert recorder.session.episodes()[0].meta["notes"] == []
    recorder.close()


def test_an_operators_end_that_was_started_again_begins_an_episode_of_its_own(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    follow(recorder, marked(1.0, note="half way"), b"died")
    follow(recorder, marked(1.0), b"restarted")
    follow(recorder, marked(0.0, outcome=1), b"restarted")
    follow(recorder, marked(0.0, outcome=2), b"died")  # speaks of an episode that is no longer the last
    recorder.close()
    metas = [entry.meta for entry in SessionFolder(tmp_path / "s").episodes()]
    assert [(meta["outcome"], meta["notes"]) for meta in metas] == [("unknown", ["half way"]), ("success", [])]


def test_a_mark_of_another_episode_is_not_put_on_the_one_under_way(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    follow(recorder, marked(1.0, ordinal=3))
    follow(recorder, marked(0.0, ordinal=4, outcome=1))
    recorder.close()
    assert [entry.meta["outcome"] for entry in SessionFolder(tmp_path / "s").episodes()] == ["unknown"]


def test_a_gap_in_a_publishers_count_marks_the_episode(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    recorder.mark(Marks(recording=True))
    for sequence in (5, 6, 9, 10):
        data = joint_states([0.0] * len(NAMES), START + sequence).data
        recorder.take(message("joint_states", cdr.JOINT_STATE, data, publisher=b"p", sequence=sequence))
    assert recorder.lost == 2
    recorder.mark(Marks())
    meta = recorder.session.episodes()[0].meta
    recorder.close()
    assert meta["topics"]["joint_states"]["lost"] == 2
    assert meta["damage"] == ["2 messages of joint_states were lost"]


def test_what_does_not_fit_the_backlog_is_counted_not_hidden(tmp_path):
    recording = Recording(tmp_path / "000000.mcap", RecordingConfig(backlog=10))
    recording.put("joint_states", cdr.JOINT_STATE, bytes(100))
    recording.close()
    assert recording.counts()["joint_states"] == {"in": 1, "out": 0, "lost": 1}
    assert recording.damage() != []


def test_an_encoder_that_falls_behind_costs_room_and_no_frame(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s", recording=RecordingConfig(spool=1)))
    play(recorder, frames=30)
    (entry,) = recorder.session.episodes()
    recorder.close()
    assert entry.meta["topics"]["camera/front/image_raw"] == {"in": 30, "out": 30, "lost": 0}
    kinds = {e.kind for e in read(entry.path) if e.topic.startswith("camera")}
    assert cdr.IMAGE in kinds


def test_a_second_recorder_is_refused_and_the_first_goes_on(tmp_path):
    first = open_session(tmp_path / "s")
    with pytest.raises(LockedError, match="another process"):
        open_session(tmp_path / "s")
    first.close()
    open_session(tmp_path / "s").close()


def test_other_cameras_another_robot_or_something_else_are_refused_by_name(tmp_path):
    open_session(tmp_path / "s").close()
    with pytest.raises(NotASessionError, match="cameras front, not front, wrist"):
        open_session(tmp_path / "s", ["front", "wrist"])
    about = json.loads((tmp_path / "s/session.json").read_text())
    about["robot"]["rate"] = 50.0
    (tmp_path / "s/session.json").write_text(json.dumps(about))
    with pytest.raises(NotASessionError, match="another rate"):
        open_session(tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(NotASessionError, match=r"thesis\.tex"):
        open_session(tmp_path / "other")
    assert not is_session(tmp_path / "other")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "x"}', "[" * 100_000, '{"format": "vla_rl.session.v1"}'])
def test_a_damaged_description_is_one_line(tmp_path, text):
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(NotASessionError) as error:
        SessionFolder(tmp_path)
    assert "\n" not in str(error.value)


def test_too_little_room_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DiskFullError, match="free some space"):
        open_session(tmp_path / "s", min_free=1 << 60)
    assert not is_session(tmp_path / "s")


def test_damage_to_a_closed_episode_is_told_by_name_and_the_others_stay(tmp_path):
    recorder, root = Recorder(open_session(tmp_path / "s")), tmp_path / "s"
    for number in range(3):
        play(recorder, ordinal=number)
    recorder.close()
    content = bytearray((root / "000001.mcap").read_bytes())
    content[len(content) // 2] ^= 1
    (root / "000001.mcap").write_bytes(content)
    (root / "000002.mcap").write_bytes(b"")
    assert SessionFolder(root).problems(thorough=True) == [
        "000001.mcap: its checksum differs",
        f"000002.mcap: it has 0 bytes where {json.loads((root / '000002.json').read_text())['bytes']} were written",
    ]


def record_until_killed(root, ready):
    recorder = Recorder(open_session(root))
    play(recorder)
    follow(recorder, marked(1.0, ordinal=1))
    follow(recorder, marked(1.0, ordinal=1, outcome=2, note="it slipped"))
    ready.set()
    for i in range(10**6):
        recorder.take(joint_states([float(i)] * len(NAMES), START + i))
        time.sleep(0.002)


def test_killed_it_opens_again_by_itself_with_all_but_the_last_moments(tmp_path):
    import multiprocessing

    root, context = tmp_path / "s", multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=record_until_killed, args=(root, ready))
    child.start()
    assert ready.wait(60)
    before, closed = digests(root), "000000.mcap"
    end = time.monotonic() + 60
    while not (root / "000001.mcap").stat().st_size > 20_000 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    session = open_session(root)
    assert len(session.repaired) == 1
    assert "000001.mcap: was open" in session.repaired[0]
    session.close()
    episodes = SessionFolder(root).episodes()
    assert [e.meta["outcome"] for e in episodes] == ["success", "failure"]  # what had been said by then
    assert episodes[1].meta["notes"] == ["it slipped"]
    assert "killed" in episodes[1].meta["damage"][0]
    stamps = [e.stamp_ns for e in read(episodes[1].path) if e.topic == "joint_states"]
    assert stamps[-1] > START + 10
    assert digests(root)[closed] == before[closed]
    again = digests(root)
    open_session(root).close()  # a repair that is done is not done again
    assert digests(root) == again


def test_an_episode_killed_at_once_leaves_nothing_behind(tmp_path):
    root = tmp_path / "s"
    open_session(root).close()
    (root / "000000.mcap").write_bytes(b"")
    session = open_session(root)
    assert session.episodes() == []
    assert "trash" in session.repaired[0]
    session.close()


def test_a_full_disk_ends_the_episode_in_one_line_and_harms_no_other(tmp_path):
    import subprocess
    import sys

    program = (
        "import signal, sys; sys.path.insert(0, sys.argv[2]);"
        "import test_session_recording as t; from pathlib import Path;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); t.fill(Path(sys.argv[1]))"
    )
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s"), here], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "no room left on the disk" in done.stdout
    assert float(done.stdout.split()[-1]) < 1.0
    root = tmp_path / "s"
    session = open_session(root)
    assert [e.meta["outcome"] for e in session.episodes()] == ["success", "unknown"]
    assert session.problems(thorough=True) == []
    session.close()


def fill(root):
    """In a process whose files can not grow beyond 2 MB (where a disk is full, the error is another number)."""
    import resource

    failed = threading.Event()
    recorder = Recorder(open_session(root, recording=quick(keep="raw")), failed=lambda _: failed.set())
    play(recorder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    recorder.mark(Marks(recording=True, ordinal=1))
    for i in range(4000):
        recorder.take(camera("front", i % 5, START + i, size=64))
        if failed.wait(0.001):
            break
    began = time.monotonic()
    try:
        recorder.mark(Marks(ordinal=1))
    except DiskFullError as error:
        print(error, time.monotonic() - began)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recorder.close()


def test_a_message_that_is_too_large_to_be_taken_marks_the_episode(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    recorder.mark(Marks(recording=True, ordinal=0))
    recorder.take(message("joint_states", cdr.JOINT_STATE, vector({"a": 0.0}, START), sequence=4))
    recorder.refuse("joint_states", sequence=5)
    recorder.take(message("joint_states", cdr.JOINT_STATE, vector({"a": 0.0}, START), sequence=6))
    recorder.mark(Marks(ordinal=0))
    (entry,) = recorder.session.episodes()
    recorder.close()
    assert entry.meta["topics"]["joint_states"] == {"in": 3, "out": 2, "lost": 1}
    assert "1 messages of joint_states were lost" in entry.meta["damage"]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["recording", "outcome", "ordinal", "human_s", "takeovers"])
def test_a_mark_that_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"'{name}' is not finite"):
        marks(["recording", name], [1.0, value], "")


def test_a_note_of_any_length_leaves_the_episode_readable(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    recorder.mark(Marks(recording=True, ordinal=0))
    recorder.note("x" * 20_000_000)
    recorder.mark(Marks(ordinal=0))
    recorder.close()
    folder = SessionFolder(tmp_path / "s")
    assert folder.problems() == []
    assert len(folder.episodes()[0].meta["notes"][0]) == LONGEST_NOTE


def test_any_number_of_notes_leaves_the_episode_readable_with_the_newest(tmp_path):
    recorder = Recorder(open_session(tmp_path / "s"))
    follow(recorder, marked(1.0))
    for number in range(MOST_NOTES + 5):
        recorder.note(f"{number:03}" + "\U0001f916" * LONGEST_NOTE)
    follow(recorder, marked(0.0))
    recorder.close()
    (entry,) = SessionFolder(tmp_path / "s").episodes()
    assert [note[:3] for note in entry.meta["notes"]] == [f"{number:03}" for number in range(5, MOST_NOTES + 5)]
