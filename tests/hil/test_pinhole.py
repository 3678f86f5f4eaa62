"""Points over a picture: where the simulator itself says that they are."""

import numpy as np
import pytest

from vla_rl.hil.pinhole import Pinhole
from vla_rl.robot import arm_spec
from vla_rl.types import CameraSpec


def front():
    return next(camera for camera in arm_spec("so101").cameras if camera.name == "front")


def test_the_described_front_camera_sees_what_the_simulated_one_sees():
    from vla_rl.sim.env import TabletopEnv

    env = TabletopEnv("lift", randomisation="none", image_size=(48, 64), cameras=("front",))
    env.reset(seed=0)
    points = np.random.default_rng(0).uniform([0.1, -0.1, 0.0], [0.3, 0.1, 0.1], (200, 3))
    seen = env.projection(env.world.data)(points)[env.world.model.camera("front").id]
    env.close()
    np.testing.assert_allclose(Pinhole(front())(points) * 2 / [64 / 48, 1], seen, atol=1e-4)


def test_what_is_behind_the_camera_has_no_place():
    assert np.isnan(Pinhole(front())(np.array([[1.0, 0.0, 1.0]]))).all()


def test_a_camera_that_nobody_measured_is_refused_by_name():
    with pytest.raises(ValueError, match="'wrist' has no frame"):
        Pinhole(CameraSpec("wrist", 640, 480, 48.5))
