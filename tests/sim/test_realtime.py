import numpy as np
import pytest

from vla_rl.sim.env import TabletopEnv
from vla_rl.sim.mujoco_robot import MujocoRobot
from vla_rl.sim.realtime import CATCH_UP_S, RealTimeRobot

PERIOD = 10**9 // 30 + 1
EPOCH = 1_700_000_000 * 10**9


class Clock:
    """Two clocks that go together and are moved by hand."""

    def __init__(self):
        self.now = 10**9

    def monotonic(self):
        return self.now

    def system(self):
        return EPOCH + self.now


def make(speed=1.0, task="lift"):
    clock = Clock()
    robot = MujocoRobot(TabletopEnv(task, cameras=()), seed=3)
    live = RealTimeRobot(robot, speed, clock.monotonic, clock.system)
    return live, clock


def moves(count):
    rng = np.random.default_rng(0)
    return np.cumsum(rng.normal(0, 0.03, (count, 6)), axis=0)


def test_commands_at_the_beginning_of_each_period_come_to_exactly_what_lock_step_comes_to():
    live, clock = make()
    alone = MujocoRobot(TabletopEnv("lift", cameras=()), seed=3)
    start = clock.now
    targets = alone.sense().joints + moves(30)
    for i, target in enumerate(targets):
        clock.now = start + i * 10**9 // 30
        live.command(target)
        alone.command(target)
        clock.now = start + (i + 1) * 10**9 // 30 + 1
        assert np.array_equal(live.sense().joints, alone.sense().joints)
        assert live.status() == alone.status()


def test_when_the_world_is_computed_does_not_matter_only_when_commands_came():
    eager, eager_clock = make()
    lazy, lazy_clock = make()
    rng, joints = np.random.default_rng(1), eager.sense().joints
    for move in moves(40):
        pause = int(rng.uniform(0.2, 1.5) * PERIOD)
        for robot, clock in ((eager, eager_clock), (lazy, lazy_clock)):
            clock.now += pause // 3
            robot.command(joints + move)
            clock.now += pause - pause // 3
        eager.sense()
        if rng.random() < 0.3:
            lazy.sense()
    assert np.array_equal(eager.sense().joints, lazy.sense().joints)
    assert eager.status() == lazy.status()


def test_a_stamp_is_the_moment_at_which_the_state_was_the_worlds():
    live, clock = make()
    first = live.sense().stamp_ns
    assert 0 <= first - (EPOCH + clock.now) <= 1
    clock.now += 5 * PERIOD + 1_500_000
    sensed = live.sense()
    assert 0 <= EPOCH + clock.now - sensed.stamp_ns < 1e9 / 240
    assert sensed.stamp_ns - first == pytest.approx(live.sim.env.world.data.time * 1e9, abs=1000)


def test_faster_than_real_time_keeps_simulated_time():
    live, clock = make(speed=5.0)
    start = live.sense().stamp_ns
    clock.now += PERIOD
    assert live.sense().stamp_ns - start == pytest.approx(5e9 / 30, abs=1000)
    assert live.now_ns() == live.sense().stamp_ns


def test_a_hold_stays_where_the_arm_was_when_it_was_asked_for_and_keeps_the_grip():
    live, clock = make()
    start = live.sense().joints
    target = start + np.array([0.5, 0, 0, 0, 0, -0.4])
    live.command(target)
    clock.now += 2 * PERIOD
    live.hold()
    clock.now += 1
    moving = live.sense().joints
    for _ in range(6):  # not all at once: that would be a stall
        clock.now += 5 * PERIOD
        live.sense()
    assert abs(live.sense().joints[0] - moving[0]) < 0.05
    assert moving[0] < start[0] + 0.3
    assert live.sim.env.world.targets[5] == target[5]


def test_after_a_stall_the_world_has_stood_still_for_the_most_of_it():
    live, clock = make()
    before = live.sim.env.world.data.time
    clock.now += 60 * 10**9
    sensed = live.sense()
    assert live.sim.env.world.data.time - before == pytest.approx(CATCH_UP_S, abs=0.01)
    assert EPOCH + clock.now - sensed.stamp_ns < 1e9 / 240


def test_time_stands_still_in_a_pause_and_steps_one_period_when_asked():
    live, clock = make()
    live.pause(True)
    before, steps = live.sense(), live.status()["steps"]
    clock.now += 10**9
    assert np.array_equal(live.sense().joints, before.joints)
    live.command(before.joints + 0.1)
    live.step()
    assert live.status()["steps"] == steps + 1
    assert (live.sense().joints > before.joints).any()
    live.pause(False)
    clock.now += PERIOD
    assert live.sense().stamp_ns > before.stamp_ns + 10**9


def test_a_new_scene_forgets_the_commands_of_the_old_one():
    live, clock = make()
    live.command(live.sense().joints + 0.5)
    live.reset(seed=3)
    fresh = MujocoRobot(TabletopEnv("lift", cameras=()), seed=3)
    clock.now += PERIOD * 4
    for _ in range(4):
        fresh.command(fresh.env.world.targets)
    assert np.array_equal(live.sense().joints, fresh.sense().joints)


def test_a_bad_command_is_refused_and_nothing_moves():
    live, _ = make()
    for bad in (np.full(6, np.nan), np.zeros(5)):
        with pytest.raises(ValueError, match="finite joint targets"):
            live.command(bad)


def test_how_an_episode_ended_stays_though_the_world_goes_on():
    robot = MujocoRobot(TabletopEnv("lift", cameras=()), seed=0)
    expert = robot.env.expert()
    while not robot.status()["terminated"]:
        robot.command(robot.spec.from_lerobot(np.asarray(expert.act(), float)))
    ended = robot.status()
    assert ended["success"] == 1
    for _ in range(30):
        robot.command(robot.sense().joints + np.array([0, 0, 0, 0, 0, 0.5]))
    later = robot.status()
    assert {k: later[k] for k in ("success", "terminated", "truncated", "steps")} == {
        k: ended[k] for k in ("success", "terminated", "truncated", "steps")
    }


def test_stamps_increase_though_the_two_clocks_are_not_read_at_once_and_follow_a_clock_that_is_set_back():
    live, clock = make()
    rng, stamps = np.random.default_rng(0), []
    live._system_ns = lambda: EPOCH + clock.now - int(rng.integers(0, 500_000))
    for i in range(60):
        clock.now += PERIOD if i % 3 else 0
        if i % 20 == 10:
            live.reset(seed=1)
        stamps.append(live.sense().stamp_ns)
    assert (np.diff(stamps) > 0).all()
    live._system_ns = lambda: EPOCH + clock.now - 3600 * 10**9
    clock.now += PERIOD
    assert live.sense().stamp_ns < stamps[-1] - 3599 * 10**9
