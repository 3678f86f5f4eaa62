"""Weights that are pushed beside a running policy: whole or not seen, the newest wins, what does not fit is left."""

import json
import sys
import threading

import pytest

from vla_rl.learn.live import Live
from vla_rl.learn.versions import KEPT, NEWEST, newest, publish


def folder(root, content):
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(content)
    (root / "training_state.safetensors").write_text("large")
    return root


def read(path):
    return (path / "config.json").read_text()


def test_the_newest_version_is_a_whole_copy_without_the_optimiser(tmp_path):
    assert newest(tmp_path / "none") is None
    first = publish(tmp_path / "v", folder(tmp_path / "a", "one"))
    second = publish(tmp_path / "v", folder(tmp_path / "a", "two"))
    assert (first.number, second.number) == (1, 2)
    assert newest(tmp_path / "v") == second
    assert read(second.path) == "two"
    assert not (second.path / "training_state.safetensors").exists()


def test_old_versions_go_and_numbers_never_come_again(tmp_path):
    for i in range(6):
        publish(tmp_path / "v", folder(tmp_path / "a", str(i)))
    names = sorted(p.name for p in (tmp_path / "v").iterdir() if p.is_dir())
    assert names == [f"{n:06d}" for n in range(7 - KEPT, 7)]
    assert newest(tmp_path / "v").number == 6


def test_a_push_that_was_killed_is_not_seen_and_does_not_stand_in_the_way(tmp_path):
    publish(tmp_path / "v", folder(tmp_path / "a", "one"))
    folder(tmp_path / "v" / ".000002.partial", "half")
    folder(tmp_path / "v" / "000002", "renamed, but not yet named")
    assert newest(tmp_path / "v").number == 1
    assert publish(tmp_path / "v", folder(tmp_path / "a", "three")).number == 3


FOREIGN = ["", "[]", '{"version": 1}', '{"version": 1, "name": "../a"}', '{"version": 9, "name": "000009"}']


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_newest_is_refused_in_one_line(tmp_path, content):
    (tmp_path / NEWEST).write_text(content)
    with pytest.raises(ValueError, match=NEWEST) as refusal:
        newest(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_new_version_takes_over_only_where_it_is_asked_for(tmp_path):
    said = []
    live = Live("zero", tmp_path / "v", read, said.append)
    live.look()
    assert live.take() == "zero"
    publish(tmp_path / "v", folder(tmp_path / "a", "one"))
    live.look()
    assert live.number == 0  # loaded, not yet in use
    assert (live.take(), live.number) == ("one", 1)
    live.look()
    assert (live.take(), len(said)) == ("one", 1)  # once


def test_a_version_that_is_loaded_at_any_instant_of_taking_another_is_not_lost(tmp_path):
    live, left = Live("0", tmp_path / "v", read, lambda _: None), 0

    def push():
        number = publish(tmp_path / "v", folder(tmp_path / "a", "new")).number
        live.look()
        return number

    def between(frame, event, _):
        nonlocal left
        frame.f_trace_opcodes = frame.f_code is Live.take.__code__
        left -= event == "opcode"
        if event == "opcode" and left == 0:
            push()
        return between if frame.f_trace_opcodes else None

    before = sys.gettrace()
    for instant in range(1, 40):
        first, left = push(), instant
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks at this when tracing begins
        sys.settrace(between)
        live.take()
        sys.settrace(before)
        live.take()
        assert live.number == first + (left <= 0)
    assert 1 < instant - left < instant  # it is over before the last instant


def test_what_can_not_be_loaded_is_told_once_and_passed_over(tmp_path):
    def load(path):
        if read(path) == "bad":
            raise RuntimeError("shapes differ\nand more")
        return read(path)

    said = []
    live = Live("zero", tmp_path / "v", load, said.append)
    publish(tmp_path / "v", folder(tmp_path / "a", "bad"))
    for _ in range(3):
        live.look()
    assert live.take() == "zero"
    assert len(said) == 1
    assert "shapes differ" in said[0]
    assert "\n" not in said[0]
    publish(tmp_path / "v", folder(tmp_path / "a", "good"))
    live.look()
    assert (live.take(), live.number) == ("good", 2)


def test_whoever_reads_while_others_push_never_sees_half_a_version(tmp_path):
    stop, wrong = threading.Event(), []

    def look():
        while not stop.is_set():
            found = newest(tmp_path / "v")
            if found is not None and json.loads(read(found.path)) != found.number:
                wrong.append(found.number)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1, 40):
        publish(tmp_path / "v", folder(tmp_path / "a", str(number)))
    stop.set()
    reader.join()
    assert wrong == []
