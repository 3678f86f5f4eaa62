"""The chain of a RobotSpec in numpy is that of the simulated arm, and limits that are none are refused."""

from dataclasses import replace

import numpy as np
import pytest
from execute_arms import ARMS, SO101, serial_arm
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.execute.chain import Chain
from vla_rl.execute.limits import Limits
from vla_rl.kinematics import Kinematics
from vla_rl.sim.arm import arm_model
from vla_rl.types import FrameSpec, RobotSpec

KINEMATICS = Kinematics(SO101, arm_model())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_tip_is_where_the_engine_has_it_in_any_pose_and_batch(seed):
    joints = np.random.default_rng(seed).uniform(SO101.low, SO101.high, (2, 3, 6))
    tips = Chain(SO101).tip(joints)
    expected = [[KINEMATICS.forward(q).position for q in row] for row in joints]
    np.testing.assert_allclose(tips, expected, atol=1e-6)


def test_an_arm_that_stands_straight_has_the_height_of_its_links():
    np.testing.assert_allclose(Chain(serial_arm("tall")).tip(np.zeros(8)), [0, 0, 7 * 0.15 + 0.1], atol=1e-12)


@pytest.mark.parametrize("name", ARMS)
def test_a_robot_with_a_chain_survives_a_dict_with_lists(name):
    data = ARMS[name].to_dict()
    for joint in data["joints"]:
        joint["frame"] = {k: v if k == "parent" else list(v) for k, v in joint["frame"].items()}
        joint["axis"] = list(joint["axis"])
    assert RobotSpec.from_dict(data) == ARMS[name]


def test_a_description_from_before_the_chain_is_still_read():
    data = SO101.to_dict()
    del data["tip"]
    data["joints"] = [{k: v for k, v in j.items() if k not in ("link", "frame", "axis")} for j in data["joints"]]
    old = RobotSpec.from_dict(data)
    assert old.names == SO101.names
    with pytest.raises(ValueError, match=r"'so101' has no kinematic chain: it lacks tip"):
        Chain(old)


def test_links_that_go_round_are_refused():
    looped = replace(SO101.joints[0], frame=FrameSpec("gripper"))
    with pytest.raises(ValueError, match="loop of links"):
        Chain(replace(SO101, joints=(looped, *SO101.joints[1:])))


def test_limits_name_what_another_robot_would_allow_more_of():
    limits = Limits.from_spec(SO101)
    faster = replace(SO101.joints[2], velocity=9.0, jerk=1.0)
    wider = ((-1.0, -0.4, 0.0), (0.5, 0.4, 0.45))
    other = Limits.from_spec(replace(SO101, joints=(*SO101.joints[:2], faster, *SO101.joints[3:]), workspace=wider))
    assert limits.loosened(other) == ["elbow_flex.velocity", "workspace"]
    assert limits.loosened(limits) == []


def test_excess_is_zero_inside_the_box_and_the_distance_outside_each_face():
    limits = replace(Limits.from_spec(SO101), box=np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]]))
    joints = np.zeros(6)
    tip = limits.chain.tip(joints)
    np.testing.assert_allclose(limits.excess(joints), [*np.maximum(-tip, 0), *np.maximum(tip - 0.1, 0)])


def test_joints_of_a_second_arm_which_the_workspace_does_not_bound_are_named():
    assert Limits.from_spec(SO101).unbounded == Limits.from_spec(serial_arm("one")).unbounded == ()
    left, right = (prefixed(serial_arm("arm", joints=3), side) for side in ("left_", "right_"))
    both = Limits.from_spec(replace(left, joints=(*left.joints, *right.joints)))
    assert both.unbounded == ("right_joint_0", "right_joint_1", "right_joint_2")
    joints = np.zeros(8)
    np.testing.assert_allclose(both.chain.tip(joints), Limits.from_spec(left).chain.tip(joints[:4]))


def prefixed(spec, side):
    """An arm whose names begin with its side, to stand beside another on the base."""

    def of_side(frame):
        return replace(frame, parent="base" if frame.parent == "link_-1" else side + frame.parent)

    joints = [
        replace(j, name=side + j.name, lerobot_name=side + j.lerobot_name, link=side + j.link, frame=of_side(j.frame))
        for j in spec.joints
    ]
    return replace(spec, joints=tuple(joints), tip=of_side(spec.tip))
