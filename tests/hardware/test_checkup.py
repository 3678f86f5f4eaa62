"""The doctor's look at an arm: every part in a line, nothing moved, and a self-test that asks first."""

import numpy as np
import pytest
from twin_desk import SPEC

from vla_rl import build_arm
from vla_rl.cli import main
from vla_rl.hardware.checkup import checkup, self_test
from vla_rl.hardware.lerobot_arm import LeRobotConfig


def notes(desk, **config):
    return {note.part: note for note in checkup(SPEC, LeRobotConfig(settings=desk.settings(), **config))}


def test_a_healthy_arm_is_well_in_every_part_and_is_left_alone(desk):
    found = notes(desk)
    assert list(found) == ["port", "servos", "voltage", "heat", "calibration", "pose"]
    assert all(note.well for note in found.values())
    assert "elbow_flex 7.4 V" in found["voltage"].found
    counts = desk.twin.status()["follower"]["counts"]
    assert counts["writes"] == 0
    assert not any(desk.torque())


@pytest.mark.parametrize(
    ("fault", "part", "said"),
    [
        ({"kind": "silent", "servo": 2}, "servos", "no answer from servo 2 (shoulder_lift)"),
        ({"kind": "overheated", "servo": 4}, "servos", "servo 4 (wrist_flex) is overheated"),
    ],
)
def test_it_stops_at_what_is_wrong_and_names_it(desk, fault, part, said):
    desk.fault(**fault)
    found = notes(desk)
    assert list(found)[-1] == part
    assert not found[part].well
    assert said in found[part].found


def test_a_camera_that_is_not_there_is_a_line_of_its_own(desk):
    camera = {"type": "opencv", "index_or_path": "/dev/video99", "width": 640, "height": 480, "fps": 30}
    found = notes(desk, cameras={"front": camera})
    assert found["pose"].well
    assert not found["camera"].well
    assert "camera front does not open" in found["camera"].found


def test_the_self_test_moves_each_joint_by_5_degrees_and_comes_back(desk):
    arm = desk.arm(at_exit="lower")
    before = desk.twin.joints()
    found = list(self_test(arm, desk.said.append))
    assert [note.part for note in found] == list(SPEC.names)
    assert all(note.well for note in found)
    assert desk.twin.joints() == pytest.approx(before, abs=np.radians(1.5))


def test_the_command_prints_a_line_a_part_asks_before_it_moves_and_fails_where_a_part_does(desk, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "no")
    where = ["--port", str(desk.twin.port), "--calibration", str(desk.folder)]
    assert main(["doctor", "--arm", "so101", *where, "--self-test"]) == 0
    said = capsys.readouterr().out
    assert "ok    servos    all 6 answer" in said
    assert "not done: nobody agreed" in said
    assert desk.twin.status()["follower"]["counts"]["goals"] == 0
    desk.fault("silent", servo=6)
    assert main(["doctor", "--arm", "so101", *where]) == 1
    assert "no answer from servo 6 (gripper)" in capsys.readouterr().out


def test_the_ways_to_leave_an_arm_are_told_alike_everywhere():
    from vla_rl.hardware.exits import EXITS

    assert tuple(EXITS) == build_arm.EXITS
