"""In-process episodes pass the same safety filter as a live arm."""

import numpy as np

from vla_rl.execute.limits import Limits
from vla_rl.robot import arm_spec
from vla_rl.rollout.gate import Gate
from vla_rl.rollout.world import World
from vla_rl.sim.env import TabletopEnv

SPEC = arm_spec("so101")


def tabletop():
    return World(TabletopEnv("lift", cameras=(), render_mode=None), "lift")


def test_an_experts_actions_are_executed_bit_for_bit():
    world = tabletop()
    world.reset(3)
    expert = world.expert(clumsy=False, seed=3)
    for _ in range(40):
        action = expert.act()
        np.testing.assert_array_equal(world.step(action).executed, action)
    world.close()


def test_wild_actions_are_cut_to_the_limits_and_what_was_executed_is_told():
    world, rng = tabletop(), np.random.default_rng(0)
    state = world.reset(3).columns["observation.state"]
    executed = [state]
    for _ in range(30):
        action = rng.uniform(world.action.low, world.action.high).astype(np.float32)
        executed.append(world.step(action).executed)
    joints = SPEC.from_lerobot(np.array(executed, dtype=np.float64))
    limits = Limits.from_spec(SPEC)
    speed = np.diff(joints, axis=0) / limits.dt
    assert (np.abs(speed) <= limits.velocity * 1.001).all()
    assert (np.abs(np.diff(speed, axis=0)) / limits.dt <= limits.acceleration * 1.001).all()
    assert np.abs(speed).max() > 1.0
    world.close()


def test_every_episode_begins_at_rest_where_the_arm_is():
    gate, state = Gate(SPEC), SPEC.to_lerobot(np.array([0.2, -0.6, 0.5, 1.2, 1.5, 0.4])).astype(np.float32)
    for _ in range(2):
        gate.begin(state)
        first = [gate.pass_on(state + np.float32(k)) for k in range(5)]
        gate.begin(state)
        np.testing.assert_array_equal([gate.pass_on(state + np.float32(k)) for k in range(5)], first)
