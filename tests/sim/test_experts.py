"""What the tasks and their scripted experts promise."""

from collections import deque
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

import vla_rl.sim
from vla_rl.sim.scene import CUBE_HALF

TASKS = tuple(vla_rl.sim.ENV_IDS)


def make(task: str, **options):
    return gymnasium.make(vla_rl.sim.ENV_IDS[task], cameras=(), **options).unwrapped


def start(task: str, seed: int, variant: int | None = None, **options):
    env = make(task, **options)
    env.reset(seed=seed, options={"variant": variant})
    return env


def episode(env, expert, noise: float = 0.0) -> Iterator[tuple[float, dict]]:
    """Reward and info of every step of an expert's episode, `noise` [rad] on the arm where the expert allows it."""
    rng, drift, over = np.random.default_rng(0), np.zeros(6), False
    scale = np.degrees(noise) * np.array([1, 1, 1, 1, 1, 0])
    while not over:
        drift = 0.85 * drift + 0.53 * scale * rng.normal(size=6)
        action = expert.act() + drift * expert.may_perturb
        action = np.clip(action, env.action_space.low, env.action_space.high)
        _, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        yield reward, info


def outcome(env, expert, noise: float = 0.0) -> dict:
    return list(episode(env, expert, noise))[-1][1]


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_does_what_is_asked_and_touches_the_named_thing_first(task):
    env = make(task)
    for seed in range(900, 905):
        env.reset(seed=seed, options={"variant": seed % env.variants})
        info = outcome(env, env.expert(seed=seed))
        assert info["is_success"]
        assert info["touched"] == info["target"]


@pytest.mark.parametrize("level", ["none", "positions", "looks"])
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_copes_with_every_level(task, level):
    env = start(task, 3, 1, randomisation=level)
    assert outcome(env, env.expert(seed=3))["is_success"]


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_copes_with_noise_where_it_allows_it(task):
    env = make(task)
    successes = 0
    for seed in range(5):
        env.reset(seed=seed)
        successes += outcome(env, env.expert(seed=seed), noise=0.02)["is_success"]
    assert successes >= 4


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_copes_with_commands_that_arrive_late(task):
    env, late = make(task), 3
    successes = 0
    for seed in range(5):
        env.reset(seed=seed)
        expert, over, info = env.expert(seed=seed), False, {}
        queue = deque([env.agent_pos(env.world.data.qpos)] * late)
        while not over:
            queue.append(expert.act())
            *_, terminated, truncated, info = env.step(queue.popleft())
            over = terminated or truncated
        successes += info["is_success"]
    assert successes >= 4


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_answers_a_thing_moved_under_its_hands(task):
    env = start(task, 5, 0)
    expert = env.expert(seed=5)
    for _ in range(15):
        env.step(expert.act())
    moved = {"button": "button0_box", "drawer": "drawer0_cabinet"}.get(task, "cube0")
    env.world.place(moved, env.world.position(moved) + np.array([-0.015, 0.015, 0.0]), env.world.yaw(moved))
    env.world.settle()
    assert outcome(env, expert)["is_success"]


@pytest.mark.parametrize("task", TASKS)
def test_what_the_expert_does_for_another_variant_is_no_success(task):
    env = start(task, 11, 1)
    actions, expert, over = [], env.expert(seed=11), False
    while not over:
        actions.append(expert.act())
        _, _, over, _, _ = env.step(actions[-1])
    env.reset(seed=11, options={"variant": 0})
    assert not any(env.step(action)[4]["is_success"] for action in actions)


@pytest.mark.parametrize("task", TASKS)
def test_the_scene_depends_on_the_seed_alone_and_the_variant_only_names(task):
    env, states, names = make(task), [], set()
    for variant in range(env.variants):
        _, info = env.reset(seed=2, options={"variant": variant})
        states.append(env.world.save())
        names.add((info["target"], *info["labels"]["labels.points"][1].tolist()))
    assert all(np.array_equal(state, states[0]) for state in states)
    assert len(names) == env.variants


@pytest.mark.parametrize("task", TASKS)
def test_no_scene_begins_solved(task):
    env = make(task, reward="dense")
    for seed in range(20):
        env.reset(seed=seed)
        _, reward, *_, info = env.step(env.expert(seed=seed).act())
        assert not info["is_success"]
        assert 0.0 <= reward < 0.7


@pytest.mark.parametrize("task", TASKS)
def test_the_dense_reward_rises_towards_success(task):
    env = start(task, 4, 1, reward="dense")
    rewards = [reward for reward, _ in episode(env, env.expert(seed=4))]
    third = len(rewards) // 3
    first, middle, last = (np.mean(rewards[i * third : (i + 1) * third]) for i in range(3))
    assert first < middle < last
    assert rewards[-1] > 0.99 * max(rewards)
    assert 0.9 < rewards[-1] <= 1.0


def test_careful_experts_vary_with_their_seed_and_repeat_with_it():
    actions = []
    for seed in (0, 0, 1):
        env = start("lift", 6, 0)
        expert = env.expert(seed=seed)
        for _ in range(20):
            env.step(action := expert.act())
        actions.append(action)
    assert np.array_equal(actions[0], actions[1])
    assert not np.allclose(actions[0], actions[2], atol=0.05)


def test_the_clumsy_expert_takes_longer():
    steps = {True: 0, False: 0}
    for clumsy in steps:
        for seed in range(8):
            env = start("lift", seed)
            steps[clumsy] += len(list(episode(env, env.expert(clumsy=clumsy, seed=seed))))
    assert steps[True] > 1.1 * steps[False]


def test_a_cube_counts_as_placed_only_in_the_named_bin_and_let_go_of():
    env = start("place", 0, 0)
    task, bins = env._task, [env.world.position(b) for b in ("bin0", "bin1")]
    for where, expected in (
        (bins[0], True),
        (bins[1], False),
        ([0.2, 0.0, 0.0], False),
        (bins[0] + [0, 0, 0.05], False),
    ):
        env.world.place("cube0", np.add(where, [0, 0, 0.002 + CUBE_HALF]))
        env.world.settle()
        assert task.satisfied == expected
    env.world.place("cube1", bins[0] + [0, 0, 0.002 + CUBE_HALF])
    env.world.place("cube0", (0.2, 0.0, CUBE_HALF))
    env.world.settle()
    assert not task.satisfied


def test_a_cube_counts_as_pushed_only_at_rest_with_its_centre_on_the_zone():
    env = start("push", 0, 0)
    zone = env.world.position("zone")
    for offset, expected in ((0.0, True), (0.035, True), (0.045, False)):
        env.world.place("cube0", (zone[0], zone[1] + offset, CUBE_HALF))
        env.world.settle()
        assert env._task.satisfied == expected
    env.world.place("cube0", (zone[0], zone[1], CUBE_HALF))
    env.world.data.joint("cube0").qvel[1] = 0.1
    env.world.settle()
    assert not env._task.satisfied


def test_a_cube_counts_as_stacked_only_on_the_named_one():
    env = start("stack", 0, 0)
    task, lower = env._task, {c: env.world.position(c) for c in ("cube1", "cube2")}
    for under, offset, expected in (("cube1", 0.0, True), ("cube1", 0.02, False), ("cube2", 0.0, False)):
        env.world.place("cube0", lower[under] + [offset, 0, 0.030])
        env.world.settle()
        assert task.satisfied == expected


@pytest.mark.parametrize(("task", "done", "short"), [("button", 0.007, 0.003), ("drawer", 0.05, 0.03)])
def test_a_button_or_drawer_counts_only_when_moved_far_enough_and_the_named_one(task, done, short):
    env = start(task, 0, 0)
    for first, second, expected in ((done, 0.0, True), (short, 0.0, False), (0.0, done, False)):
        env.world.set_joint(f"{task}0", first)
        env.world.set_joint(f"{task}1", second)
        env.world.settle()
        assert env._task.satisfied == expected


@pytest.mark.parametrize("task", TASKS)
def test_an_expert_at_a_higher_pace_does_the_same_in_proportionally_less_time(task):
    env = make(task)
    steps = {1.0: 0, 1.35: 0}
    for pace in steps:
        for seed in range(3):
            env.reset(seed=seed)
            info = [info for _, info in episode(env, env.expert(seed=seed, pace=pace))]
            steps[pace] += len(info)
            assert info[-1]["is_success"]
    assert steps[1.35] < 0.85 * steps[1.0]
