"""Kinematics agrees with an independent chain of quaternions, written from the table of the arm alone."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.kinematics import Kinematics, Pose
from vla_rl.robot import arm_spec
from vla_rl.sim.arm import arm_model

# body: parent, position [m], quaternion (w, x, y, z), joint
TABLE = {
    "shoulder": ("base", (0.0388353, 0, 0.0624), (0, 0, -1, 0), "shoulder_pan"),
    "upper_arm": ("shoulder", (-0.0303992, -0.0182778, -0.0542), (0.5, -0.5, -0.5, -0.5), "shoulder_lift"),
    "lower_arm": ("upper_arm", (-0.11257, -0.028, 0), (0.707107, 0, 0, 0.707107), "elbow_flex"),
    "wrist": ("lower_arm", (-0.1349, 0.0052, 0), (0.707107, 0, 0, -0.707107), "wrist_flex"),
    "gripper": ("wrist", (0, -0.0611, 0.0181), (0.017209, -0.017209, 0.706897, 0.706897), "wrist_roll"),
}
TIP = ((0.012, -0.000218, -0.098127), (0, 0, 1, 0))

SPEC = arm_spec("so101")
KINEMATICS = Kinematics(SPEC, arm_model())
JOINTS = st.tuples(*(st.floats(j.low, j.high) for j in SPEC.joints)).map(np.array)


def multiply(p, q):
    """Hamilton's product."""
    w, v, u, r = p[0], p[1:], q[0], q[1:]
    return np.array([w * u - v @ r, *(w * r + u * v + np.cross(v, r))])


def rotate(q, vector):
    conjugate = q * [1, -1, -1, -1]
    return multiply(multiply(q, np.array([0.0, *vector])), conjugate)[1:]


def chain(joints):
    """The fingertip frame by quaternions: position and quaternion."""
    position, quaternion = np.zeros(3), np.array([1.0, 0, 0, 0])
    for (_, offset, turn, _), angle in zip(TABLE.values(), joints, strict=False):
        position = position + rotate(quaternion, np.array(offset))
        fixed = np.array(turn, float) / np.linalg.norm(turn)
        hinge = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        quaternion = multiply(multiply(quaternion, fixed), hinge)
    return position + rotate(quaternion, np.array(TIP[0])), multiply(quaternion, np.array(TIP[1], float))


def turn_between(quaternion, rotation):
    """Angle between a quaternion and a rotation matrix [deg]."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    cosine = (np.trace(matrix.reshape(3, 3).T @ rotation) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@given(JOINTS)
@settings(max_examples=200, deadline=None)
def test_forward_agrees_with_the_table_to_1_mm_and_half_a_degree_in_any_pose(joints):
    position, quaternion = chain(joints)
    pose = KINEMATICS.forward(joints)
    assert np.linalg.norm(pose.position - position) < 1e-3
    assert turn_between(quaternion, pose.rotation) < 0.5


def test_the_table_is_the_models_own_for_every_body():
    """Frames, limits and masses as the engine has them."""
    model = arm_model()
    for body, (parent, position, quaternion, joint) in TABLE.items():
        assert model.body(model.body(body).parentid[0]).name == parent
        np.testing.assert_allclose(model.body(body).pos, position, atol=1e-9)
        unit = np.array(quaternion) / np.linalg.norm(quaternion)
        assert abs(model.body(body).quat @ unit) > 1 - 1e-9
        spec = next(j for j in SPEC.joints if j.name == joint)
        np.testing.assert_allclose(model.joint(joint).range, [spec.low, spec.high])
    assert model.body_mass.sum() == pytest.approx(0.147 + 0.100006 + 0.103 + 0.104 + 0.079 + 0.087 + 0.012 + 0.012)


@given(st.floats(0.14, 0.24), st.floats(-0.6, 0.6), st.floats(0.014, 0.06), st.floats(-0.6, 0.6))
@settings(max_examples=40, deadline=None)
def test_inverse_reaches_every_grasp_on_the_table_to_a_millimetre(radius, angle, height, twist):
    position = np.array([0.0388353 + radius * np.cos(angle), radius * np.sin(angle), height])
    yaw = angle - np.pi / 2 + twist
    x, z = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([0, 0, -1.0])
    target = Pose(position, np.stack([x, np.cross(z, x), z], axis=1))
    joints = KINEMATICS.inverse(target, np.array([-angle, 0.0, 0.2, 1.3, 1.57, 0.4]))
    reached = KINEMATICS.forward(joints)
    assert np.linalg.norm(reached.position - position) < 1e-3
    assert (joints >= SPEC.low).all()
    assert (joints <= SPEC.high).all()
    assert joints[-1] == 0.4  # the gripper is not the inverse's business


def test_a_model_without_the_robots_joints_is_refused_by_name():
    empty = mujoco.MjModel.from_xml_string("<mujoco/>")
    with pytest.raises(ValueError, match="no joint shoulder_pan"):
        Kinematics(SPEC, empty)
