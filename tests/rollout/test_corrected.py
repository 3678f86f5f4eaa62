"""A policy under an operator: who drove is told, proposals go on, and a correction begins from where the arm is."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature

from vla_rl import build
from vla_rl.cli import main
from vla_rl.data.cache import open_numbers
from vla_rl.hil.scripted import OperatorConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats
from vla_rl.robot import arm_spec
from vla_rl.rollout.learned import Plan
from vla_rl.rollout.play import Job
from vla_rl.rollout.workers import play

ENV = build.EnvConfig(image_size=32, cameras=("front",))
PERIOD = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy that has learned nothing: it stays about where it is, and needs help."""
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    spec = arm_spec("so101").lerobot_action_spec
    inputs = {
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
    }
    config = VLAConfig(
        input_features=inputs, output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))}, device="cpu",
        fps=30, action_spec=spec.to_dict(), state_names=list(spec.names), horizon=8, n_action_steps=PERIOD, width=32,
        inference_steps=2,
    )  # fmt: skip
    states, actions = torch.randn(50, 6), torch.randn(50, 8, 6) * 0.1
    stats = compute_stats(states, actions, torch.zeros(50, 8, dtype=torch.bool), config.relative_mask)
    VLAPolicy(config, stats=stats).save_pretrained(folder)
    return str(folder)


def corrected(checkpoint, count=2, operator=None, slots=2, task="button"):
    plan = Plan(slots=slots, batch=2)
    policy = build.PolicyConfig(checkpoint, plan=plan, device="cpu", operator=operator or OperatorConfig(patience=0.5))
    jobs = [Job(i, task, 700 + i, keep_columns=True) for i in range(count)]
    return list(play(jobs, partial(build.make_player, ENV, policy, threads=1), 0))


@pytest.fixture(scope="module")
def rollouts(checkpoint):
    return corrected(checkpoint)


def edges(rollout):
    return [(note["edge"], note["step"]) for note in rollout.meta["notes"]]


def test_the_operator_makes_a_policy_that_knows_nothing_succeed(rollouts):
    assert [r.meta["outcome"] for r in rollouts] == ["success", "success"]


def test_every_step_says_who_drove_and_the_edges_say_why(rollouts):
    for rollout in rollouts:
        drove = rollout.columns["intervention"]
        changes = np.flatnonzero(np.diff(drove.astype(int), prepend=0))
        assert [step for _, step in edges(rollout)] == changes.tolist()
        assert [edge for edge, _ in edges(rollout)] == ["take_over" if drove[i] else "hand_back" for i in changes]
        assert all("progress" in n["reason"] or "made good" in n["reason"] for n in rollout.meta["notes"])
        assert edges(rollout)[0] == ("take_over", changes[0])
        assert 14 <= changes[0] < 30  # half a second without progress, at 30 Hz


def test_proposals_go_on_while_the_operator_drives(rollouts):
    for rollout in rollouts:
        columns, drove = rollout.columns, rollout.columns["intervention"]
        assert columns["policy_action_valid"].all()
        assert np.abs(columns["policy_action"] - columns["action"])[drove].max() > 1.0  # degrees
        first = np.flatnonzero(drove)[0]
        arm = slice(None, 5)  # the gripper is on its way, as fast as it may
        np.testing.assert_allclose(columns["policy_action"][:first, arm], columns["action"][:first, arm], atol=2.0)
        assert (np.diff(rollout.candidates["row"]) == PERIOD).all()  # the policy decides all the time


def test_a_hand_back_waits_for_a_chunk_of_what_is_seen_then(checkpoint):
    operator = OperatorConfig(patience=0.4, regain=0.05, least=0.1)
    for rollout in corrected(checkpoint, operator=operator):
        back = [step for edge, step in edges(rollout) if edge == "hand_back"]
        assert back
        assert all(step in rollout.candidates["row"] for step in back)


def test_an_episode_is_the_same_whoever_plays_beside_it(checkpoint, rollouts):
    for alone, beside in zip(corrected(checkpoint, slots=1), rollouts, strict=True):
        assert alone.meta["actions"] == beside.meta["actions"]


def test_pace_and_noise_of_the_hand_change_the_correction_and_nothing_before_it(checkpoint, rollouts):
    for options in ({"pace": 1.5}, {"noise": 0.03}, {"skill": "clumsy"}):
        (other,) = corrected(checkpoint, 1, OperatorConfig(patience=0.5, **options))
        first = edges(other)[0][1]
        assert np.array_equal(other.columns["action"][:first], rollouts[0].columns["action"][:first])
        shared = min(len(other.columns["action"]), len(rollouts[0].columns["action"]))
        assert not np.array_equal(other.columns["action"][:shared], rollouts[0].columns["action"][:shared])


def test_collect_keeps_corrections_and_counts_them(checkpoint, tmp_path):
    out, result = tmp_path / "c", tmp_path / "r.json"
    asked = ["collect", "--task", "button", "--policy", checkpoint, "--operator", "patience=0.5", "--episodes", "2"]
    assert main([*asked, "--workers", "0", "--seed", "700", "--out", str(out), "--json", str(result)]) == 0
    said, cache = json.loads(result.read_text()), open_numbers(out / "dataset")
    drove = cache.columns["intervention"].astype(bool)
    assert said["human_share"] == pytest.approx(drove.mean())
    assert said["takeovers"] >= 2
    assert [episode["operator"]["patience"] for episode in cache.episodes] == [0.5, 0.5]
    assert main([*asked[:-1], "3", "--workers", "0", "--seed", "700", "--out", str(out)]) == 0  # goes on
    other = [word if word != "patience=0.5" else "patience=2" for word in asked]
    assert main([*other, "--workers", "0", "--seed", "700", "--out", str(out)]) == 1  # another operator


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policy", "expert", "--operator"], "'expert' is a script"),
        (["--policy", "{checkpoint}", "--operator", "luck=1"], "a name of: patience"),
    ],
)
def test_what_can_not_be_corrected_is_refused_in_one_line(more, said, checkpoint, tmp_path, capsys):
    asked = [word.format(checkpoint=checkpoint) for word in more]
    assert main(["collect", "--task", "lift", "--workers", "0", "--out", str(tmp_path / "c"), *asked]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert said in error[0]


@pytest.mark.parametrize("task", build.task_names())
def test_an_expert_who_comes_late_goes_on_from_where_the_arm_is(task):
    """What operators correct with: a fresh expert in the middle of somebody else's attempt."""
    world = build.make_world(build.EnvConfig(cameras=()), task)
    world.reset(701, 0)
    clumsy = world.expert(clumsy=True, seed=5)
    for _ in range(45):
        world.step(clumsy.act())
    late, success = world.expert(clumsy=False, seed=1), False
    for _ in range(190):
        after = world.step(late.act())
        success |= after.success
    world.close()
    assert success
