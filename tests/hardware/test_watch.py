"""What measurements say about an arm, by themselves: silence, jumps, encoders that stand still."""

import numpy as np
import pytest

from vla_rl.hardware.watch import AWAY, Watch
from vla_rl.robot import arm_spec

SPEC = arm_spec("so101")
PERIOD = round(1e9 / SPEC.rate)
NONE = np.zeros(len(SPEC.joints))


def play(watch, goals, joints, start=0):
    """Goals and joints a period; when the watch first complains [s], and what it says."""
    for k, (goal, reading) in enumerate(zip(goals, joints, strict=True)):
        now = start + k * PERIOD
        odd = watch.take(reading, now)
        watch.goals(goal, now)
        wrong = odd if watch.lost else watch.verdict(now)
        if wrong:
            return now * 1e-9, wrong
    return None, ""


def ramp(speed, seconds, joint=1):
    """A joint that moves at a speed [rad/s], a row a period."""
    rows = np.zeros((round(seconds * SPEC.rate), len(SPEC.joints)))
    rows[:, joint] = speed * np.arange(len(rows)) / SPEC.rate
    return rows


def lagging(goals, lag):
    """An arm that follows its goals so many periods late."""
    return np.vstack([np.repeat(goals[:1], lag, axis=0), goals[: len(goals) - lag]])


@pytest.mark.parametrize("speed", [0.02, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("lag", [0, 1, 2, 3, 5])
def test_an_arm_that_follows_is_never_named(speed, lag):
    goals = ramp(speed, 0.8)
    assert play(Watch(SPEC), np.vstack([goals, goals[::-1]]), lagging(np.vstack([goals, goals[::-1]]), lag))[1] == ""


@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
def test_one_that_was_stuck_before_it_moved_is_named_too(speed):
    goals = ramp(speed, 1.5)
    assert "shoulder_lift does not follow" in play(Watch(SPEC), goals, 0 * goals)[1]


@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
def test_an_encoder_that_stands_still_is_named_within_200_ms(speed):
    goals = ramp(speed, 1.5)
    joints = lagging(goals, 2)
    hit = round(0.5 * SPEC.rate)
    joints[hit:] = joints[hit]
    when, said = play(Watch(SPEC), goals, joints)
    assert "shoulder_lift does not follow" in said
    assert when - hit / SPEC.rate < 0.2


def test_a_gripper_that_holds_something_stands_still_by_right():
    goals = ramp(-1.0, 1.0, joint=5)
    assert play(Watch(SPEC), goals, NONE * np.zeros((len(goals), 1)))[1] == ""


def test_an_arm_at_rest_beside_its_goal_is_not_stuck():
    goals = np.tile(NONE + 2 * AWAY, (60, 1))
    assert play(Watch(SPEC), goals, np.zeros((60, 6)))[1] == ""


def test_one_impossible_sample_is_left_out_and_two_are_a_fault():
    watch = Watch(SPEC)
    joints = np.zeros((5, 6))
    joints[2, 0] = 2 * np.pi
    assert [bool(watch.take(q, k * PERIOD)) for k, q in enumerate(joints)] == [False, False, True, False, False]
    assert not watch.lost
    joints[3:, 0] = 2 * np.pi
    _, said = play(Watch(SPEC), joints * 0, joints)
    assert "shoulder_pan jumped by 360 deg" in said


def test_silence_of_three_periods_is_named():
    watch = Watch(SPEC)
    watch.take(NONE, PERIOD)
    assert watch.verdict(3 * PERIOD) == ""
    assert "no good answer for 0.1" in watch.verdict(5 * PERIOD)
