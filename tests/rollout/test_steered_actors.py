"""Promises of episodes in which a critic chooses."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from test_learned_actors import save_act, save_policy
from toy_critics import save_toy_critic

from vla_rl import build
from vla_rl.rollout.evaluate import EvalConfig, evaluate
from vla_rl.rollout.play import Job
from vla_rl.rollout.workers import play

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Reach-v0", max_steps=12)
TASK = "toy/Reach-v0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def critic(tmp_path_factory, checkpoint):
    return save_toy_critic(tmp_path_factory.mktemp("critic"), checkpoint)


def player(policy, slots=16, **steering):
    plan = dataclasses.replace(build.plan(policy, **{"candidates": 4, **steering}), slots=slots)
    return partial(build.make_player, ENV, build.PolicyConfig(policy, plan=plan, device="cpu"), threads=1)


def run(policy, count=2, **steering):
    return list(play([Job(i, TASK, i, keep_columns=True) for i in range(count)], player(policy, **steering), 0))


def executed(rollouts):
    return [rollout.columns["action"] for rollout in rollouts]


def test_the_candidate_of_highest_value_is_executed_and_all_are_handed_over(checkpoint, critic):
    for rollout in run(checkpoint, critic=critic, selector="argmax"):
        drawn = rollout.candidates
        assert drawn["chunks"].shape == (3, 4, 8, 2)
        assert drawn["values"].shape == (3, 2, 4)
        np.testing.assert_array_equal(drawn["selected"], drawn["values"].mean(1).argmax(-1))
        for row, chunks, index in zip(drawn["row"], drawn["chunks"], drawn["selected"], strict=True):
            proposed = rollout.columns["policy_action"][row : row + 4]
            np.testing.assert_array_equal(proposed, chunks[index, :4])
        expected = np.repeat(drawn["values"].mean(1).max(-1), 4)
        np.testing.assert_allclose(rollout.columns["chunk.value"], expected, rtol=1e-6)


def test_candidates_are_the_same_draws_however_many_are_drawn(checkpoint):
    few, many = (run(checkpoint, 1, candidates=k)[0].candidates["chunks"] for k in (2, 6))
    np.testing.assert_allclose(few, many[:, :2], atol=1e-5)


@pytest.mark.parametrize("selector", ["argmax", "softmax", "lcb", "quantile", "weighted"])
def test_what_is_chosen_does_not_depend_on_who_else_is_in_the_batch(checkpoint, critic, selector):
    alone = run(checkpoint, slots=1, critic=critic, selector=selector)
    together = run(checkpoint, slots=2, critic=critic, selector=selector)
    for a, b in zip(executed(alone), executed(together), strict=True):
        np.testing.assert_array_equal(a, b)


def test_where_every_margin_is_too_small_the_first_is_executed_and_that_is_counted(checkpoint, critic):
    steered = run(checkpoint, critic=critic, selector="argmax", margin=1e9)
    for a, b in zip(executed(steered), executed(run(checkpoint)), strict=True):
        np.testing.assert_array_equal(a, b)
    config = EvalConfig((TASK,), 2)
    said = evaluate(config, {}, player(checkpoint, critic=critic, selector="argmax", margin=1e9))["steering"]
    assert said["steered"] == 0
    assert all(rollout.candidates["abstained"].any() for rollout in steered)
    assert not any(rollout.candidates["abstained"].any() for rollout in run(checkpoint))
    assert said["abstained"]["margin"] > 0
    assert said["value"] is not None


def test_a_policy_that_always_answers_the_same_is_steered_by_perturbations_and_the_critics_own_eyes(
    tmp_path, checkpoint
):
    act = save_act(tmp_path / "act", chunk=8)
    own = save_toy_critic(tmp_path / "critic", checkpoint, own=True)
    steering = {"critic": own, "selector": "argmax", "draws": 1, "steps_per_chunk": 4}
    drawn = run(act, 1, **steering)[0].candidates
    assert len({chunk.tobytes() for chunk in drawn["chunks"][0]}) == 4
    np.testing.assert_array_equal(drawn["selected"], drawn["values"].mean(1).argmax(-1))
    assert drawn["selected"].any()


MISFITS = {
    "another policy's": (lambda folder, policy, other: save_toy_critic(folder, other), {}, "policy .* in the critic"),
    "for other states": (
        lambda folder, policy, other: save_toy_critic(folder, policy, state=3), {}, "state size 3 in the critic, 2 in",
    ),
    "for other windows": (
        lambda folder, policy, other: save_toy_critic(folder, policy), {"steps_per_chunk": 2},
        "actions executed of a chunk 4 in the critic, 2 in",
    ),
    "that failed its report": (
        lambda folder, policy, other: save_toy_critic(folder, policy, report="fail"), {}, "failed its report",
    ),
    "alone": (
        lambda folder, policy, other: save_toy_critic(folder, policy, ensemble=1), {"selector": "lcb"},
        "needs an ensemble of at least 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_critic_is_refused_in_one_line(case, checkpoint, tmp_path):
    make, steering, message = MISFITS[case]
    other = save_policy(tmp_path / "other", width=48)
    folder = make(tmp_path / "critic", checkpoint, other)
    with pytest.raises(ValueError, match=message) as refused:
        run(checkpoint, 1, **{"critic": folder, "selector": "argmax", **steering})
    assert "\n" not in str(refused.value)


def test_a_critic_that_failed_its_report_is_followed_where_it_is_trusted(checkpoint, tmp_path):
    folder = save_toy_critic(tmp_path / "critic", checkpoint, report="fail")
    assert run(checkpoint, 1, critic=folder, selector="argmax", trusted=True)


def test_a_rule_that_needs_a_critic_says_so():
    with pytest.raises(ValueError, match="--selector argmax needs a --critic; without one there are: first, random"):
        build.plan("folder", candidates=4, selector="argmax")
    with pytest.raises(ValueError, match="no critic 'nobody'"):
        build.plan("folder", candidates=4, selector="argmax", critic="nobody")
    with pytest.raises(ValueError, match="no critic ''; there are: tabletop"):
        build.check_critic("")
    with pytest.raises(ValueError, match="'expert' has no chunks"):
        build.plan("expert", critic="nobody")


def test_with_joined_chunks_the_critic_values_what_is_executed(checkpoint, critic):
    from vla_rl.steer.critic import LoadedCritic

    rollout = run(checkpoint, 1, critic=critic, selector="argmax", ensemble="temporal", steps_per_chunk=4)[0]
    columns, rows = rollout.columns, rollout.candidates["row"]
    proposed = np.stack([columns["policy_action"][row : row + 4] for row in rows])
    assert not np.allclose(proposed[1], rollout.candidates["chunks"][1, rollout.candidates["selected"][1], :4])
    drawn, plan = LoadedCritic.load(critic), build.plan(checkpoint, candidates=4)
    actor = build.make_player(ENV, build.PolicyConfig(checkpoint, plan=plan, device="cpu"), threads=1).actor
    from vla_rl.rollout.draw import Question
    from vla_rl.rollout.world import Frame

    seen = [
        Frame({k: v[row] for k, v in columns.items() if k.startswith("obs")}, rollout.meta["instruction"])
        for row in rows
    ]
    features = np.stack([actor.drawer.draw([Question((frame,), 4, 0)])[0].features for frame in seen])
    states = columns["observation.state"][rows]
    said = drawn.score(features, states, proposed[:, None])[:, :, 0].mean(0)
    np.testing.assert_allclose(said, columns["chunk.value"][rows], atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("guide", ["fk", "gradient"])
def test_a_critic_can_act_while_chunks_are_drawn(checkpoint, tmp_path, guide, own):
    critic = save_toy_critic(tmp_path, checkpoint, own=own)
    options = {"critic": critic, "candidates": 32}
    plain = run(checkpoint, 1, **options)[0].candidates["values"]
    options |= {"guide": guide, "guide_temperature": 1e-3}
    guided = run(checkpoint, 1, **options)[0]
    assert guided.candidates["values"][0].mean() > plain[0].mean(), (
        "of the first decision, made of the same observation"
    )
    np.testing.assert_array_equal(executed([guided])[0], executed(run(checkpoint, 1, slots=3, **options))[0])


def test_guidance_without_a_critic_or_over_perturbed_draws_is_refused(checkpoint, critic):
    for options in ({"guide": "fk"}, {"guide": "fk", "critic": critic, "draws": 2}):
        with pytest.raises(ValueError, match="--guide needs a --critic, and goes without --draws"):
            build.plan(checkpoint, candidates=4, **options)
    with pytest.raises(ValueError, match="fk resamples among candidates, and there would be 1: draw 2 or more"):
        build.plan(checkpoint, critic=critic, guide="fk")
    build.plan(checkpoint, critic=critic, guide="gradient")
