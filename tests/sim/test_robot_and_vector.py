"""The same world behind other doors: a Robot in radians, and many worlds at once."""

import gymnasium
import numpy as np
import pytest

import vla_rl.sim  # noqa: F401
from vla_rl.sim.mujoco_robot import MujocoRobot


def tabletop(**options):
    return gymnasium.make("vla_rl/Lift-v0", **options).unwrapped


def test_a_command_in_radians_does_what_the_same_action_does_in_lerobots_units():
    env = tabletop(image_size=48)
    start, _ = env.reset(seed=4)
    robot = MujocoRobot(tabletop(image_size=48), seed=4)
    for k in range(10):
        action = start["agent_pos"] + np.float32(k)
        obs, _, _, _, info = env.step(np.clip(action, env.action_space.low, env.action_space.high))
        robot.command(robot.spec.from_lerobot(action.astype(float)))
        seen = robot.observe()
        np.testing.assert_allclose(robot.spec.to_lerobot(seen.joints), obs["agent_pos"], atol=1e-4)
        assert seen.instruction == info["instruction"]
        assert robot.info["target"] == info["target"]
    assert {c.name: (c.height, c.width) for c in robot.spec.cameras} == {"front": (48, 48), "wrist": (48, 48)}
    env.close()
    robot.close()


def test_simulated_time_is_the_robots_clock():
    robot = MujocoRobot(tabletop(cameras=()), seed=0)
    start = robot.now_ns()
    assert start > 0
    for _ in range(30):
        robot.command(robot.observe().joints)
    assert robot.now_ns() - start == pytest.approx(1e9, abs=10)
    assert robot.observe().stamp_ns == robot.now_ns()
    robot.reset(seed=1)
    assert robot.now_ns() > start + 1e9


def test_a_command_is_clipped_to_the_limits_and_says_so_or_refused_before_anything_moves():
    robot = MujocoRobot(tabletop(cameras=()), seed=0)
    assert np.array_equal(robot.command(np.full(6, 10.0)), robot.spec.high)
    state = robot.env.save_state()
    for bad in (np.full(6, np.nan), np.zeros(5)):
        with pytest.raises(ValueError, match="6 finite"):
            robot.command(bad)
    assert np.array_equal(robot.env.save_state(), state)


def test_holding_keeps_the_grip():
    env = tabletop(cameras=())
    robot = MujocoRobot(env, seed=0)
    expert = env.expert(seed=0)
    while not robot.terminated:
        robot.command(robot.spec.from_lerobot(expert.act().astype(float)))
    for _ in range(30):
        sent = robot.hold()
    assert sent[-1] == pytest.approx(-0.05, abs=1e-3)  # the command, not the measured 0.15
    assert env._task.satisfied


@pytest.mark.parametrize("cameras", [(), ("front",)])
def test_many_at_once_are_bit_for_bit_what_each_is_alone(cameras):
    options = {"cameras": cameras, "image_size": 32}
    many = gymnasium.make_vec("vla_rl/Lift-v0", num_envs=3, **options)
    alone = [tabletop(**options) for _ in range(3)]
    many.reset(seed=10)
    experts, over = [], [False] * 3
    for i, env in enumerate(alone):
        env.reset(seed=10 + i)
        experts.append(env.expert(seed=i))
    for _ in range(90):  # long enough for all to succeed and start anew
        actions = np.stack([expert.act() for expert in experts])
        obs, rewards, terminated, _, infos = many.step(actions)
        for i, env in enumerate(alone):
            if over[i]:
                (mine, info), reward, over[i] = env.reset(), 0.0, False
                experts[i] = env.expert(seed=i)
            else:
                mine, reward, over[i], _, info = env.step(actions[i])
            assert np.array_equal(mine["agent_pos"], obs["agent_pos"][i])
            assert all(np.array_equal(mine["pixels"][c], obs["pixels"][c][i]) for c in cameras)
            assert (reward, over[i], info["touched"]) == (rewards[i], terminated[i], infos["touched"][i])
    for env in (many, *alone):
        env.close()


def test_one_bad_action_among_many_moves_no_world():
    many = gymnasium.make_vec("vla_rl/Lift-v0", num_envs=2, cameras=())
    obs, _ = many.reset(seed=0)
    actions = obs["agent_pos"].copy()
    actions[1, 0] = np.nan
    before = [env.env.save_state() for env in many.unwrapped.envs]
    with pytest.raises(ValueError, match="finite"):
        many.step(actions)
    assert all(
        np.array_equal(env.env.save_state(), state) for env, state in zip(many.unwrapped.envs, before, strict=True)
    )
