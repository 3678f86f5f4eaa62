"""The demo's correction session: collected, learned from and measured on the same scenes, in small."""

import json

import pytest

from vla_rl.commands import demo
from vla_rl.rollout import report


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    place = tmp_path_factory.mktemp("corrections")
    lesson = demo.Lesson(episodes=2, steps=2, batch=2, scenes=2)
    return demo.teach(lesson, place), lesson, place


def test_both_policies_play_the_same_scenes_and_the_gain_has_its_interval(taught):
    said, lesson, _ = taught
    assert said["compare"]["pairs"] == lesson.scenes
    assert said["session"]["episodes"] == lesson.episodes
    low, high = said["compare"]["ci95"]
    assert low <= said["compare"]["difference"] <= high
    assert said["compare"]["difference"] == pytest.approx(
        said["after"]["success_rate"] - said["before"]["success_rate"]
    )
    assert json.dumps(said, allow_nan=False)


def test_the_same_again_makes_nothing_twice(taught):
    said, lesson, place = taught
    made = {path: path.stat().st_mtime_ns for path in place.rglob("*.safetensors")}
    assert made
    assert demo.teach(lesson, place) == said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.safetensors")} == made


def test_the_report_and_the_last_line_say_what_it_bought(taught):
    compared = {"pairs": 30, "difference": 0.4, "ci95": [0.2, 0.6]}
    rates = {"before": {"success_rate": 0.5, "ci95": [0.3, 0.7]}, "after": {"success_rate": 0.9, "ci95": [0.8, 1.0]}}
    said = {**taught[0], **rates, "compare": compared}
    assert "50% -> 90%, +40 points (+20 to +60) on the same 30 scenes" in demo.line(said)
    (table,) = report._lesson(said)
    assert {"weak", "drawer", "+40 points (+20 to +60)"} <= set(table["rows"][0])
