"""What keys and sticks mean: never faster than configured, opposite ones cancel, directions as in the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.hil.driving import KEYS, SLOW, Driving, DrivingConfig
from vla_rl.hil.pinhole import Pinhole
from vla_rl.robot import arm_spec

CONFIG = DrivingConfig()
DRIVING = Driving(arm_spec("so101"), CONFIG)
codes = st.frozensets(st.sampled_from([*KEYS, *SLOW]) | st.text(max_size=5))
shares = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=9)


@given(codes, shares)
def test_no_combination_is_faster_than_each_direction_may_be(keys, axes):
    command = DRIVING(keys, axes)
    assert np.isfinite(command.twist).all()
    assert np.linalg.norm(command.twist[:2]) <= CONFIG.linear * np.sqrt(2) + 1e-9
    assert abs(command.twist[2]) <= CONFIG.linear + 1e-9
    assert np.linalg.norm(command.twist[3:]) <= CONFIG.angular * np.sqrt(2) + 1e-9
    assert abs(command.gripper) <= 1


@given(codes)
def test_shift_is_slower_and_nothing_else(keys):
    fast, slow = DRIVING(keys - SLOW), DRIVING(keys | SLOW)
    np.testing.assert_allclose(slow.twist, fast.twist * CONFIG.slow, atol=1e-12)


@pytest.mark.parametrize("pair", ["WS", "AD", "RF", "QE", "TG", "XC"])
def test_opposite_keys_cancel(pair):
    command = DRIVING({f"Key{letter}" for letter in pair})
    assert not command.twist.any()
    assert command.gripper == 0


def test_two_keys_of_one_meaning_are_one():
    np.testing.assert_array_equal(DRIVING({"KeyW", "ArrowUp"}).twist, DRIVING({"KeyW"}).twist)


def test_keys_move_the_gripper_as_the_front_picture_shows_it():
    lens = Pinhole(next(camera for camera in arm_spec("so101").cameras if camera.frame))
    here = np.array([0.2, 0.0, 0.1])

    def moved(key):
        return lens(here + DRIVING({key}).twist[:3]) - lens(here)

    assert moved("KeyD")[0] > 0 > moved("KeyA")[0]
    assert moved("KeyS")[1] > 0 > moved("KeyW")[1]
    assert moved("KeyF")[1] > 0 > moved("KeyR")[1]


def test_without_a_known_camera_away_is_ahead_of_the_base():
    np.testing.assert_allclose(Driving()({"KeyW"}).twist, [CONFIG.linear, 0, 0, 0, 0, 0])
