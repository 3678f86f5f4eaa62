import multiprocessing
from functools import partial

import numpy as np
import pytest
import toy_env

from vla_rl import build
from vla_rl.rollout.actors import ExecutionNoise, ExpertActor, RandomActor
from vla_rl.rollout.play import Job, Player, Proposal
from vla_rl.rollout.workers import WorkerError, play
from vla_rl.types import Source

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0")
TASK = "toy/Reach-v0"


def player(actor, env=ENV):
    return Player(partial(build.make_world, env), actor)


def rollouts(jobs, actor_factory, workers=0, env=ENV):
    return list(play(jobs, partial(_make, actor_factory, env), workers))


def _make(actor_factory, env):
    return player(actor_factory(), env)


class Diverging(RandomActor):
    """Finite twice, then not."""

    def begin(self, *args):
        super().begin(*args)
        self.left = 2

    def act(self, frames):
        self.left -= 1
        action = np.full(2, 0.1 if self.left >= 0 else np.nan, np.float32)
        return {slot: Proposal(action, action, Source.POLICY) for slot in frames}


class Crashing(RandomActor):
    def act(self, frames):
        raise ValueError("the arm fell off")


class Dying(RandomActor):
    def act(self, frames):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def same(a, b):
    assert a.job == b.job
    assert a.meta == b.meta
    assert a.columns.keys() == b.columns.keys()
    for name in a.columns:
        np.testing.assert_array_equal(a.columns[name], b.columns[name])


JOBS = [Job(i, TASK, seed=10 + i // 2, choice=i % 2, keep_columns=True) for i in range(5)]


def test_an_episode_is_the_same_whoever_plays_it_and_whatever_came_before():
    alone = [rollouts([job], partial(ExpertActor, clumsy=True))[0] for job in JOBS]
    together = rollouts(JOBS, partial(ExpertActor, clumsy=True))
    apart = rollouts(JOBS, partial(ExpertActor, clumsy=True), workers=2)
    for a, b, c in zip(alone, together, apart, strict=True):
        same(a, b)
        same(a, c)


def test_a_scene_depends_on_its_seed_and_the_choice_only_renames_its_target():
    first, second = rollouts(JOBS[:2], ExpertActor)
    np.testing.assert_array_equal(first.columns["observation.state"][0], second.columns["observation.state"][0])
    assert {first.meta["target"], second.meta["target"]} == set(toy_env.CORNERS)
    assert first.meta["instruction"] != second.meta["instruction"]


def test_columns_have_the_schema_of_the_data_set():
    episode = rollouts(JOBS[:1], ExpertActor)[0]
    columns, steps = episode.columns, episode.meta["steps"]
    assert {name: (c.dtype.name, c.shape[1:]) for name, c in columns.items()} == {
        "observation.state": ("float32", (2,)),
        "observation.images.top": ("uint8", (32, 32, 3)),
        "labels.points": ("float32", (4,)),
        "action": ("float32", (2,)),
        "policy_action": ("float32", (2,)),
        "policy_action_valid": ("bool", ()),
        "intervention": ("bool", ()),
        "next.reward": ("float32", ()),
        "next.done": ("bool", ()),
        "next.truncated": ("bool", ()),
        "next.success": ("bool", ()),
        "chunk.index": ("int64", ()),
        "chunk.value": ("float32", ()),
        "chunk.selected": ("int64", ()),
        "stamp_ns": ("int64", ()),
    }
    assert {len(c) for c in columns.values()} == {steps}
    assert columns["next.success"].tolist() == [False] * (steps - 1) + [True]
    np.testing.assert_array_equal(np.diff(columns["stamp_ns"]), 100_000_000)
    assert episode.meta["cycle_time_s"] == steps / 10


def test_a_time_limit_truncates_and_is_never_a_terminal():
    for env, steps in ((ENV, 30), (build.EnvConfig(env=ENV.env, max_steps=7), 7)):
        episode = rollouts([Job(0, TASK, 0, keep_columns=True)], RandomActor, env=env)[0]
        assert (episode.meta["termination"], episode.meta["outcome"]) == ("time_limit", "failure")
        assert episode.columns["next.truncated"].tolist() == [False] * (steps - 1) + [True]
        assert not episode.columns["next.done"].any()


def test_an_environment_without_a_time_limit_gets_one():
    endless = build.EnvConfig(env="gymnasium:toy_env:toy/Endless-v0")
    episode = rollouts([Job(0, "toy/Endless-v0", 0)], RandomActor, env=endless)[0]
    assert (episode.meta["steps"], episode.meta["termination"]) == (1000, "time_limit")


@pytest.mark.parametrize("key", ["is_success", "success", "succeed"])
def test_every_usual_success_key_is_understood(key):
    env = build.EnvConfig(env=ENV.env, kwargs={"success_key": key})
    assert rollouts(JOBS[:1], ExpertActor, env=env)[0].meta["outcome"] == "success"


def test_an_environment_without_a_success_key_is_refused_with_what_it_has():
    env = build.EnvConfig(env=ENV.env, kwargs={"success_key": "done_well"})
    with pytest.raises(ValueError, match=r"is_success, success, succeed; it has .*done_well"):
        rollouts(JOBS[:1], ExpertActor, env=env)


def test_what_is_recorded_as_action_is_what_was_executed_within_bounds():
    columns = rollouts(JOBS[:1], Wild)[0].columns
    np.testing.assert_array_equal(columns["action"], np.clip(columns["policy_action"], -0.2, 0.2).astype(np.float32))
    assert np.abs(columns["policy_action"]).max() > 0.2


class Wild(RandomActor):
    def act(self, frames):
        action = np.array([0.05, 3.0], np.float32)
        return {slot: Proposal(action, action, Source.POLICY) for slot in frames}


def test_an_action_that_is_not_finite_is_not_executed_and_makes_the_episode_invalid():
    episode = rollouts(JOBS[:1], Diverging)[0]
    assert episode.meta["steps"] == len(episode.columns["action"]) == 2
    assert (episode.meta["outcome"], episode.meta["termination"]) == ("failure", "fault")
    assert "not finite" in episode.meta["invalid"]


def test_results_come_in_the_order_of_the_jobs_although_workers_are_not_equally_fast():
    jobs = [Job(i, TASK, seed=i) for i in range(9)]
    assert [r.job.index for r in rollouts(jobs, ExpertActor, workers=2)] == list(range(9))


def test_a_worker_that_fails_is_reported_in_its_own_words():
    with pytest.raises(WorkerError, match=r"^the arm fell off$"):
        rollouts(JOBS, Crashing, workers=1)


def test_a_worker_that_is_killed_is_reported_and_never_waited_for():
    with pytest.raises(WorkerError, match="killed by signal 9"):
        rollouts(JOBS, Dying, workers=1)


def test_a_worker_that_is_dead_before_its_next_job_is_reported_all_the_same():
    before = set(multiprocessing.active_children())

    def jobs():
        yield JOBS[0]
        for worker in set(multiprocessing.active_children()) - before:
            worker.join()
        yield from JOBS[1:]

    with pytest.raises(WorkerError, match="killed by signal 9"):
        rollouts(jobs(), Dying, workers=1)


def test_execution_noise_has_its_scale_its_memory_and_fades_without_a_jump():
    noise = ExecutionNoise(np.array([1.0, 0.0]), dt=1 / 30, seed=0)
    values = np.array([noise.sample(True) for _ in range(20_000)])[100:]
    assert values[:, 0].std() == pytest.approx(1.0, abs=0.1)
    assert not values[:, 1].any()
    assert np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1] == pytest.approx(np.exp(-1 / 6), abs=0.02)
    fading = [noise._gain for _ in range(7) if noise.sample(False) is not None]
    assert fading[-1] == 0.0
    assert np.abs(np.diff([1.0, *fading])).max() <= ExecutionNoise.FADE + 1e-9


def test_a_clean_expert_is_recorded_beside_what_was_executed():
    lift = build.EnvConfig(image_size=16)
    actor = ExpertActor(noise=0.02)
    worlds = partial(build.make_world, lift)
    episode = next(play([Job(0, "lift", 3, keep_columns=True)], lambda: Player(worlds, actor), 0))
    difference = episode.columns["action"] - episode.columns["policy_action"]
    assert episode.columns["policy_action_valid"].all()
    assert not difference[:, 5].any(), "the gripper is never perturbed"
    assert 0.3 < np.abs(difference[:, :5]).max() < np.degrees(0.02) * 6
    assert episode.meta["names"]["action"][0] == "shoulder_pan.pos"
