"""robot_description: the chain that RViz and MoveIt draw is the one that control keeps to."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from vla_rl.execute.chain import Chain, rotation
from vla_rl.robot import arm_names, arm_spec
from vla_rl.ros.urdf import urdf


@pytest.mark.parametrize("arm", arm_names())
def test_the_tip_is_where_control_says_for_any_joints(arm):
    spec = arm_spec(arm)
    data = loaded(urdf(spec))
    for joints in np.random.default_rng(0).uniform(spec.low, spec.high, (10, len(spec.joints))):
        for name, value in zip(spec.names, joints, strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_kinematics(data.model, data)
        np.testing.assert_allclose(data.body(f"{arm}_tip").xpos, Chain(spec).tip(joints), atol=1e-6)


def test_a_camera_whose_place_is_known_has_the_frame_that_its_pictures_name():
    spec = arm_spec("so101")
    data = loaded(urdf(spec))
    mujoco.mj_kinematics(data.model, data)
    front = next(camera.frame for camera in spec.cameras if camera.name == "front")
    np.testing.assert_allclose(data.body("camera_front").xpos, front.position, atol=1e-6)
    np.testing.assert_allclose(data.body("camera_front").xmat.reshape(3, 3), rotation(front.quaternion), atol=1e-6)
    unknown = replace(spec, cameras=tuple(replace(camera, frame=None) for camera in spec.cameras))
    assert "camera_" not in urdf(unknown)


def loaded(text):
    """The description as MuJoCo reads it, with weight that nobody asks for."""
    options = '<mujoco><compiler fusestatic="false" inertiafromgeom="false" boundmass="1" boundinertia="1"/></mujoco>'
    model = mujoco.MjModel.from_xml_string(text.replace("<link ", f"{options}<link ", 1))
    return mujoco.MjData(model)
