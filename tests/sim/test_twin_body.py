"""The tabletop as a body for servos outside: the same world as the simulation's, in single steps."""

from types import SimpleNamespace

import numpy as np
import pytest

from vla_rl.sim.env import TabletopEnv
from vla_rl.sim.twin_body import TabletopBody


def motors(targets, stiffness=1.0, damping=1.0, torque=2.94):
    return [SimpleNamespace(target=t, stiffness=stiffness, damping=damping, torque=torque) for t in targets]


@pytest.fixture(scope="module")
def body():
    body = TabletopBody(TabletopEnv("lift"), seed=7)
    yield body
    body.close()


def test_with_the_models_gains_it_is_the_simulation_bit_for_bit(body):
    env = TabletopEnv("lift", cameras=())
    env.reset(seed=7)
    body.reset(7)
    goal = env.world.joints + np.array([0.3, 0.2, -0.2, -0.1, 0.4, 0.5])
    for _ in range(20):
        env.world.advance(goal)
        for _ in range(env.world.substeps):
            body.advance(motors(goal))
    assert np.array_equal(body.joints, env.world.joints)
    assert body.status()["steps"] == 20


def test_a_motor_without_torque_lets_the_arm_sink(body):
    body.reset(7)
    start = body.joints
    for _ in range(240):
        body.advance(motors(start, torque=0.0))
    assert np.abs(body.joints - start).max() > 0.02
    assert np.abs(body.torques).max() == 0.0


def test_a_softer_motor_is_farther_behind(body):
    behind = []
    for stiffness in (1.0, 0.1):
        body.reset(7)
        goal = body.joints + np.array([0.5, 0, 0, 0, 0, 0])
        for _ in range(20):
            body.advance(motors(goal, stiffness))
        behind.append(abs(goal[0] - body.joints[0]))
    assert behind[1] > behind[0]


def test_a_new_scene_leaves_the_arm_alone_where_that_is_asked(body):
    body.reset(7)
    goal = body.joints + np.array([0.4, 0.1, 0, 0, 0, 0])
    for _ in range(240):
        body.advance(motors(goal))
    left = body.joints
    body.reset(8, place_arm=False)
    assert body.joints == pytest.approx(left)
    body.reset(8)
    assert body.joints == pytest.approx(body.start, abs=0.05)


def test_a_picture_of_a_snapshot_is_the_simulations_whatever_has_moved_since(body):
    env = TabletopEnv("lift")
    env.reset(seed=9)
    body.reset(9)
    snapshot = body.snapshot()
    for _ in range(100):
        body.advance(motors(body.joints + 0.1))
    with body.painter() as painter:
        for camera in body.cameras:
            assert np.array_equal(painter.draw(snapshot, camera), env.picture(camera))
    env.close()


def test_a_camera_that_is_off_sees_something_else_and_stays_off_over_resets():
    straight = TabletopBody(TabletopEnv("lift"), seed=3)
    off = TabletopBody(TabletopEnv("lift"), 3, {"front": (0.02, 0, 0, 0, 0, 0.1)})
    moved = []
    for _ in range(2):
        poses = [b._world.model.camera("front") for b in (straight, off)]
        moved.append(poses[1].pos - poses[0].pos)
        assert not np.allclose(poses[0].quat, poses[1].quat)
        straight.reset(4)
        off.reset(4)
    assert np.array(moved) == pytest.approx(np.array([[0.02, 0, 0]] * 2))
    straight.close()
    off.close()
