"""The shared nouns keep what they are given, and the LeRobot mapping goes there and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.robot import arm_names, arm_spec
from vla_rl.types import ActionChunk, ActionKind, ActionSpec, Candidates, RobotSpec


@pytest.fixture(scope="module")
def so101() -> RobotSpec:
    return arm_spec("so101")


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_lerobot_units_go_there_and_back(values):
    spec = arm_spec("so101")
    np.testing.assert_allclose(spec.from_lerobot(spec.to_lerobot(np.array(values))), values, atol=1e-12)


def test_gripper_runs_from_0_to_100_and_arm_joints_in_degrees(so101):
    low, high = so101.to_lerobot(so101.low), so101.to_lerobot(so101.high)
    assert (low[5], high[5]) == pytest.approx((0, 100))
    np.testing.assert_allclose(high[:5], np.degrees(so101.high[:5]))


def test_an_arms_offset_shifts_only_its_own_joint(so101):
    data = so101.to_dict()
    data["joints"][1]["offset"] = math.radians(10)
    shifted = RobotSpec.from_dict(data)
    difference = so101.to_lerobot(np.zeros(6)) - shifted.to_lerobot(np.zeros(6))
    np.testing.assert_allclose(difference, [0, 10, 0, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("name", arm_names())
def test_robot_spec_survives_a_dict(name):
    spec = arm_spec(name)
    assert RobotSpec.from_dict(spec.to_dict()) == spec


def test_unknown_arm_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown arm 'so100'.*so101"):
        arm_spec("so100")


def test_action_spec_survives_json_with_open_bounds():
    spec = ActionSpec(ActionKind.RAW, ("x", "y"), ("1", "1"), (-math.inf, 0.0), (math.inf, 512.0))
    assert ActionSpec.from_dict(spec.to_dict()) == spec


def test_action_spec_refuses_ragged_fields():
    with pytest.raises(ValueError, match="differ in length"):
        ActionSpec(ActionKind.RAW, ("x",), ("1",), (0.0, 1.0), (1.0,))


def test_a_candidate_is_a_chunk_with_the_same_clock(so101):
    chunks = np.arange(2 * 3 * 6, dtype=float).reshape(2, 3, 6)
    chunk = Candidates(chunks, so101.action_spec, 1 / 30, 123).chunk(1)
    assert isinstance(chunk, ActionChunk)
    assert chunk.stamp_ns == 123
    np.testing.assert_array_equal(chunk.actions, chunks[1])
