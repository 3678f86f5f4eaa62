"""What an arm was asked and what it did tell its delay and its gains; a recording of a known arm is the oracle."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.build_arm import make_servo_replay
from vla_rl.cli import main
from vla_rl.record.marks import Marks
from vla_rl.rollout.sysid import Fitter
from vla_rl.rollout.sysid_model import Motion, Servo, replayed, setpoints
from vla_rl.rollout.sysid_motions import arm_of, motions_of

TICK = 2 * np.pi / 4096
TRUE = Servo(0.060, 0.8, 1 / 39)
STEP_S = 1 / 240


def _messages():
    """The recorder's tests know how a session is written."""
    path = Path(__file__).parents[1] / "record" / "session_messages.py"
    found = spec_from_file_location("session_messages", path)
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def asked(seconds, seed=0):
    """Targets in every joint's own slow rhythm, in the air, with stamps that jitter, and stamps of joints."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 30)
    times = np.arange(count) / 30 + rng.uniform(0, 1e-3, count)
    frequency, phase = rng.uniform(0.1, 0.4, (2, 6)) * 1.0, rng.uniform(0, 6, (2, 6))
    wave = np.sin(2 * np.pi * frequency * times[:, None, None] + phase).sum(1)
    targets = np.array([0, -0.4, -0.2, 0.1, 0, 0.5]) + np.array([0.3, 0.25, 0.25, 0.25, 0.3, 0.2]) * wave
    begin = 1_700_000_000 * 10**9
    return Motion(
        begin + (times * 1e9).astype(np.int64), targets,
        begin + ((times + 0.004) * 1e9).astype(np.int64), np.tile(targets[0], (count, 1)),
    )  # fmt: skip


def recorded(simulate, seconds, servo=TRUE):
    """What an arm with such servos would have done, as its encoders tell it."""
    motion = asked(seconds)
    joints = np.floor(replayed(motion, [servo], simulate)[0] / TICK) * TICK
    return Motion(motion.asked_ns, motion.targets, motion.seen_ns, joints)


def write_session(root, motion):
    messages = _messages()
    session = messages.open_session(root, recording=messages.quick())
    recording = session.begin()
    for topic, stamps, values in (
        ("joint_targets", motion.asked_ns, motion.targets), ("joint_states", motion.seen_ns, motion.joints)
    ):  # fmt: skip
        for stamp, joints in zip(stamps, values, strict=True):
            data = messages.vector(dict(zip(messages.NAMES, joints, strict=True)), int(stamp))
            recording.put(topic, messages.cdr.JOINT_STATE, data)
    session.end(Marks())
    session.close()


@pytest.fixture(scope="module")
def simulate():
    return make_servo_replay("so101")


def test_delay_and_gain_of_a_recorded_session_are_found_and_drawn(tmp_path, simulate, capsys):
    write_session(tmp_path / "session", recorded(simulate, 14.0))
    picture, result = tmp_path / "track.png", tmp_path / "found.json"
    assert main(["sysid", "--session", str(tmp_path / "session"), "--plot", str(picture), "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert abs(found["delay_ms"] - 60) < 10
    assert abs(found["gain"] / 0.8 - 1) < 0.05
    assert all(joint["rms_fit"] < 0.5 * joint["rms_model"] for joint in found["joints"].values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "gain" in capsys.readouterr().out


def test_stamps_of_joints_that_are_all_late_do_not_pass_for_gains(simulate):
    motion = recorded(simulate, 14.0)
    late = Motion(motion.asked_ns, motion.targets, motion.seen_ns + 3_000_000, motion.joints)
    servo = Fitter([late], simulate).fit().servo
    assert abs(servo.delay_s + servo.lag_s - 0.063) < 0.001
    assert abs(servo.lag_s) <= 0.005
    assert abs(servo.gain / 0.8 - 1) < 0.05


def test_a_session_gives_back_what_was_asked_and_seen(tmp_path, simulate):
    wanted = recorded(simulate, 3.0)
    write_session(tmp_path, wanted)
    assert arm_of(tmp_path) == "so101"
    (found,) = motions_of(tmp_path, simulate.spec)
    inside = wanted.seen_ns <= wanted.asked_ns[-1]
    np.testing.assert_array_equal(found.seen_ns, wanted.seen_ns[inside])
    np.testing.assert_allclose(found.joints, wanted.joints[inside])
    np.testing.assert_allclose(found.targets[-1], wanted.targets[-1])
    (short,) = motions_of(tmp_path, simulate.spec, 1.0)
    assert (short.seen_ns[-1] - short.seen_ns[0]) * 1e-9 <= 1.0


def test_a_silence_ends_a_motion(tmp_path, simulate):
    motion = recorded(simulate, 4.0)
    kept = np.abs(motion.asked_ns - motion.asked_ns[60]) > 5e8
    write_session(tmp_path, Motion(motion.asked_ns[kept], motion.targets[kept], motion.seen_ns, motion.joints))
    assert len(motions_of(tmp_path, simulate.spec)) == 2


@settings(max_examples=20, deadline=None)
@given(st.floats(0.005, 0.1), st.floats(-1.0, 1.0))
def test_a_ramp_goes_to_its_goal_no_faster_than_it_may(ramp, goal):
    motion = Motion(np.array([0, 1]), np.full((2, 1), goal), np.array([0, 1]), np.zeros((2, 1)))
    starts = np.arange(2000) * STEP_S * 1e9
    path = setpoints(motion, [Servo(0.0, 1.0, ramp)], starts, STEP_S)[0, :, 0]
    assert abs(path[-1] - goal) < 1e-3
    assert np.abs(path).max() <= abs(goal) + STEP_S**2 / ramp
    until = np.argmax(np.abs(path - goal) < 0.05 * abs(goal) + 1e-3)
    assert (np.abs(np.diff(path[:until], 2)) <= STEP_S**2 / ramp * (1 + 1e-9)).all()


def test_a_delay_only_moves_setpoints_in_time():
    motion = asked(2.0)
    starts = motion.asked_ns[0] + np.arange(400) * STEP_S * 1e9
    now, later = setpoints(motion, [Servo(), Servo(24 * STEP_S)], starts, STEP_S)
    np.testing.assert_allclose(later[24:], now[:-24], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--session", "{}"], "neither a session nor a data set"),
        (["--session", "{}/s", "--arm", "fr3"], "no dynamic model of arm 'fr3'; there are: so101"),
        (["--session", "{}/s", "--seconds", "0"], "--seconds 0 must be above 0"),
        (["--session", "{}/s"], "nothing to fit"),
    ],
)
def test_what_can_not_be_fitted_is_one_line(arguments, said, tmp_path, simulate, capsys):
    write_session(tmp_path / "s", recorded(simulate, 0.5))
    assert main(["sysid", *(part.format(tmp_path) for part in arguments)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_arm_like_its_model_is_found_to_be_so(simulate):
    fit = Fitter([recorded(simulate, 8.0, Servo())], simulate).fit()
    assert abs(fit.servo.delay_s) < 0.01
    assert abs(fit.servo.gain - 1) < 0.1
