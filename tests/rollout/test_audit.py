"""Promises of the audit, and of going back in time."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_learned_actors import save_policy

from vla_rl import build
from vla_rl.rollout import regret
from vla_rl.rollout.audit import AuditConfig, best_of
from vla_rl.rollout.branches import Branches, Start
from vla_rl.rollout.evaluate import EvalConfig, evaluate
from vla_rl.rollout.learned import Plan, load_drawer
from vla_rl.rollout.statistics import cluster_interval, spearman
from vla_rl.steer.choose import ChooserConfig

ENV = build.EnvConfig(env="gymnasium:toy_env:toy/Savable-v0", max_steps=12)
TASK = "toy/Savable-v0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"))


def measure(checkpoint, audit=None, env=ENV, task=TASK, episodes=3, **plan):
    policy = build.PolicyConfig(checkpoint, plan=Plan(**{"candidates": 4, **plan}), device="cpu")
    player = partial(build.make_player, env, policy, threads=1, audit=audit)
    return evaluate(EvalConfig((task,), episodes), {}, player)


def note(success, values=None, chosen=0, medoid=0, steps=None):
    success = [list(map(bool, row)) for row in success]
    return {
        "success": success, "values": values, "chosen": chosen, "medoid": medoid,
        "steps": steps or [[10] * len(row) for row in success],
    }  # fmt: skip


def record(*notes):
    return {"notes": list(notes), "choices": {"made": len(notes)}}


# -- what is measured -------------------------------------------------------------------------------------------------


def test_an_episode_under_audit_goes_as_it_would_alone(checkpoint):
    plain, audited = measure(checkpoint), measure(checkpoint, AuditConfig(stride=1))
    assert [e["actions"] for e in plain["per_episode"]] == [e["actions"] for e in audited["per_episode"]]


def test_every_candidate_of_every_strided_decision_is_executed(checkpoint):
    result = measure(checkpoint, AuditConfig(stride=2, continuations=2))
    notes = [n for e in result["per_episode"] for n in e["notes"]]
    assert {np.shape(n["success"]) for n in notes} == {(4, 2)}
    assert {n["decision"] for n in notes} <= {0, 2}
    assert result["audit"]["coverage"] == pytest.approx(len(notes) / result["steering"]["decisions"])
    assert {"oracle_gain_points", "regret_points", "crossed_gain_points"} <= result["audit"].keys()
    assert "ranking_regret_points" not in result["audit"], "there is no critic"


def test_a_blend_is_executed_too_and_is_what_was_chosen(checkpoint):
    """The mean of all candidates is none of them, and need not end as the one that lies nearest to it."""
    result = measure(checkpoint, AuditConfig(stride=1), chooser=ChooserConfig(selector="mean"))
    notes = [n for e in result["per_episode"] for n in e["notes"]]
    assert {(np.shape(n["success"]), np.shape(n["blend"])) for n in notes} == {((4, 1), (1,))}
    ended = note([[False], [True]], chosen=1) | {"blend": [False]}
    said = regret.audit([record(ended)])
    assert (said["success"]["chosen"], said["regret_points"]) == (0.0, 100.0)


def test_the_end_of_a_branch_depends_on_nothing_but_its_start(checkpoint):
    make_world = partial(build.make_world, ENV)
    world, drawer = make_world(TASK), load_drawer(checkpoint, "cpu")
    frame = world.reset(3)
    saved, rng = world.save(), np.random.default_rng(0)
    chunks = rng.uniform(-0.2, 0.2, (5, 8, 2)).astype(np.float32)
    starts = [Start(TASK, saved, (frame,), chunk, (7, i)) for i, chunk in enumerate(chunks)]
    together = Branches(make_world, drawer, 4).play(starts)
    assert together == [Branches(make_world, drawer, 4, room=1).play([start])[0] for start in starts]
    assert together == Branches(make_world, drawer, 4, room=2).play(starts[::-1])[::-1]


def test_where_the_oracle_is_followed_the_best_candidate_is_executed(checkpoint):
    result = measure(checkpoint, AuditConfig(stride=1, follow="oracle"))
    steered = [e["choices"]["steered"] for e in result["per_episode"]]
    best = [
        sum(best_of(np.array(n["success"], float), np.array(n["steps"], float)) > 0 for n in e["notes"])
        for e in result["per_episode"]
    ]
    assert steered == best


def test_an_environment_that_cannot_go_back_is_refused_in_one_line(checkpoint):
    plain = dataclasses.replace(ENV, env="gymnasium:toy_env:toy/Reach-v0")
    with pytest.raises(ValueError, match=r"^'toy/Reach-v0' cannot save and restore its state .*; our tasks can$"):
        measure(checkpoint, AuditConfig(), plain, "toy/Reach-v0", episodes=1)


def test_one_candidate_has_nothing_to_audit(checkpoint):
    with pytest.raises(ValueError, match="needs a checkpoint with --candidates of at least 2"):
        measure(checkpoint, AuditConfig(), candidates=1)
    with pytest.raises(ValueError, match="unknown --follow 'luck'; there are: chosen, oracle"):
        AuditConfig(follow="luck")


def test_a_tabletop_goes_on_from_a_saved_moment_bit_for_bit_in_another_world_and_blind():
    env = build.EnvConfig(cameras=("front",), image_size=32)
    first, second = build.make_world(env, "push"), build.make_world(env, "push")
    rng = np.random.default_rng(0)
    target = first.reset(5).columns["observation.state"]
    actions = target + rng.uniform(-60, 60, (12, 6)).astype(np.float32)  # far enough for the safety filter to act
    for action in actions[:6]:
        first.step(action)
    saved = first.save()
    went = [first.step(action) for action in actions[6:]]
    second.restore(saved)
    again = [second.step(action, look=place == 5) for place, action in enumerate(actions[6:])]
    for a, b in zip(went, again, strict=True):
        np.testing.assert_array_equal(a.executed, b.executed)
        np.testing.assert_array_equal(a.frame.columns["observation.state"], b.frame.columns["observation.state"])
    assert "observation.images.front" not in again[0].frame.columns
    np.testing.assert_array_equal(
        went[-1].frame.columns["observation.images.front"], again[-1].frame.columns["observation.images.front"]
    )
    first.close()
    second.close()


# -- what it says -----------------------------------------------------------------------------------------------------

outcomes = st.lists(st.lists(st.booleans(), min_size=1, max_size=1), min_size=2, max_size=8)


@given(st.lists(outcomes, min_size=1, max_size=6))
def test_a_critic_that_knows_the_endings_has_no_regret_and_a_constant_one_that_of_random(endings):
    perfect = [note(e, [np.array(e, float)[:, 0].tolist()] * 2) for e in endings]
    constant = [note(e, [[0.3] * len(e)] * 2) for e in endings]
    said = regret.audit([record(*perfect)])
    assert said["ranking_regret_points"] == 0.0
    assert said["concordance"] in (None, 1.0)
    blind = regret.audit([record(*constant)])
    success = blind["success"]
    assert blind["ranking_regret_points"] == pytest.approx(100 * (success["oracle"] - success["random"]))
    assert blind["ranking_gain_points"] == pytest.approx(0.0)
    assert blind["concordance"] in (None, 0.5)


def test_a_candidate_without_a_value_is_what_the_critic_ranks_last():
    """One that was not finite: it can not be executed, and nobody knows what it is worth."""
    broken = note([[True], [False], [False]], [[0.9, 0.2, np.nan]] * 2)
    said = regret.audit([record(broken)])
    assert said["ranking_regret_points"] == 0.0
    assert said["concordance"] == 1.0
    assert said["rank_correlation"] > 0.8


@given(st.integers(1, 5), st.data())
def test_hindsight_without_luck_lies_between_random_and_the_oracle(k, data):
    rows = st.lists(st.booleans(), min_size=3, max_size=3)
    n = note(data.draw(st.lists(rows, min_size=k, max_size=k)))
    assert regret.crossed(n) <= regret.oracle(n) + 1e-12


def test_pure_luck_gives_the_oracle_a_gain_and_the_crossed_choice_none():
    rng = np.random.default_rng(0)
    lucky = [record(note(rng.random((8, 2)) < 0.5)) for _ in range(600)]
    said = regret.audit(lucky)
    assert said["oracle_gain_points"] > 30
    low, high = said["crossed_gain_points_ci95"]
    assert low < 0 < high


def test_the_best_ending_is_success_first_then_the_sooner_one():
    success, steps = np.array([[0.0], [1.0], [1.0]]), np.array([[5.0], [40.0], [30.0]])
    assert best_of(success, steps) == 2
    assert best_of(np.zeros((3, 1)), np.full((3, 1), 50.0)) == 0, "where all fail, the first"


def test_rank_correlation_has_its_textbook_values():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 2.0, 2.0])) == pytest.approx(0.894427191)
    assert spearman(np.ones(4), np.arange(4.0)) == 0.0


def test_an_interval_that_resamples_episodes_is_as_wide_as_their_dependence_makes_it():
    rng = np.random.default_rng(0)
    alike = [np.full(20, value) for value in rng.normal(size=30)]
    apart = [rng.normal(size=20) for _ in range(30)]
    width = [np.diff(cluster_interval(groups))[0] for groups in (alike, apart)]
    assert width[0] > 3 * width[1]
    assert width[1] == pytest.approx(2 * 1.96 / np.sqrt(600), rel=0.3)
