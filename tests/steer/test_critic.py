"""LoadedCritic and RobotCritic: one context for any number of candidates, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from steer_critics import NAMES, save

from vla_rl.bench.policy import default_policy
from vla_rl.robot import arm_spec
from vla_rl.steer.critic import LoadedCritic, RobotCritic
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import Candidates, Observation

SPEC = arm_spec("so101")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def critic(tmp_path_factory) -> LoadedCritic:
    return LoadedCritic.load(save(tmp_path_factory.mktemp("critic"), ensemble=3))


@pytest.fixture(scope="module")
def sees(tmp_path_factory) -> LoadedCritic:
    """A critic with an encoder of its own."""
    folder = tmp_path_factory.mktemp("own")
    default_policy()[0].save_pretrained(folder / "eyes")
    return LoadedCritic.load(save(folder / "critic", features=128, eyes=folder / "eyes"))


def rows(batch: int = 2, k: int = 5, horizon: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return RNG.normal(size=(batch, 8)), RNG.normal(size=(batch, 6)), RNG.normal(size=(batch, k, horizon, 6))


def candidates(k: int = 5, images: bool = False, features: bool = True, **changes) -> Candidates:
    pictures = {name: RNG.integers(0, 256, (96, 96, 3), np.uint8) for name in ("front", "wrist")} if images else {}
    seen = Observation(RNG.uniform(-0.5, 0.5, 6), pictures, "lift the red cube", 10**9)
    chunks = SPEC.from_lerobot(RNG.normal(size=(k, 9, 6)))
    context = RNG.normal(size=8).astype(np.float32) if features else None
    options = {"context": context, "observation": seen} | changes
    return Candidates(chunks, SPEC.action_spec, 1 / 30, 10**9, **options)


def test_all_candidates_are_one_context_and_one_pass_and_the_same_as_one_by_one(critic, monkeypatch):
    inner, calls = critic._critic, []
    for name in ("embed", "value"):
        kept = getattr(inner, name)
        monkeypatch.setattr(inner, name, lambda *a, n=name, f=kept: (calls.append(n), f(*a))[1])
    features, state, chunks = rows(k=32)
    together = critic.score(features, state, chunks)
    assert calls == ["embed", "value"]
    assert together.shape == (3, 2, 32)
    alone = [critic.score(features, state, chunks[:, k : k + 1]) for k in range(32)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=2), atol=1e-5)


def test_only_the_window_that_will_be_executed_counts(critic):
    features, state, chunks = rows()
    changed = chunks.copy()
    changed[:, :, critic.window :] = 99.0
    np.testing.assert_array_equal(critic.score(features, state, chunks), critic.score(features, state, changed))
    with pytest.raises(ValueError, match="chunks of 3 actions are shorter than the critic's window, 4"):
        critic.score(features, state, chunks[:, :, :3])


def test_lower_quantiles_lie_lower_and_ascend(critic):
    features, state, chunks = rows()
    low, high = (critic.score(features, state, chunks, tau) for tau in (0.1, 0.9))
    assert (low < critic.score(features, state, chunks)).all()
    assert (low < high).all()


def test_most_of_what_training_saw_is_near_and_what_it_never_saw_is_far(critic):
    seen = np.random.default_rng(0).normal(size=(500, 8))
    assert (critic.distance(seen) <= 1.0).mean() == pytest.approx(0.99, abs=0.01)
    assert (critic.distance(seen * 20) > 2.0).all()


def test_a_failed_report_is_refused_unless_told_otherwise_and_then_said(tmp_path):
    folder = save(tmp_path, report="fail")
    with pytest.raises(ValueError, match=r"failed its report \(rank correlation 0.02 is below 0.3\); --trust-critic"):
        LoadedCritic.load(folder)
    assert "failed its report" in LoadedCritic.load(folder, trusted=True).notes[0]


def test_a_passed_report_needs_no_word_and_a_missing_one_does(critic, tmp_path):
    assert LoadedCritic.load(save(tmp_path, report="pass")).notes == []
    assert "has no report" in critic.notes[0]


UNFIT = {
    "another policy": ({"policy_fingerprint": "b" * 64}, "policy a{12} in the critic, b{12} in the policy"),
    "other features": ({"feature_dim": 9}, "feature size 8 in the critic, 9 in the policy"),
    "other joints": ({"names": ["x"] * 6}, "action names .*shoulder_pan.*in the critic, .*'x'.*in the policy"),
    "short chunks": ({"horizon": 2}, "chunks of 4 actions or more in the critic, 2 in the policy"),
}


@pytest.mark.parametrize(("other", "line"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_refused_with_both_sides(other, line, tmp_path):
    with pytest.raises(ValueError, match=line):
        LoadedCritic.load(save(tmp_path, fingerprint="a" * 64)).require_fit(**other)


def test_radians_become_the_data_sets_units_at_the_border(critic):
    found, robot = candidates(), RobotCritic(critic, SPEC)
    context, distance = robot.prepare(found)
    state = SPEC.to_lerobot(found.observation.joints)
    expected = critic.score(found.context[None], state[None], SPEC.to_lerobot(found.chunks)[None])[:, 0]
    np.testing.assert_allclose(robot.values(context, found.chunks), expected, atol=1e-5)
    assert distance == pytest.approx(critic.distance(found.context[None])[0])


def test_a_critic_of_another_arm_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"action size|action names"):
        RobotCritic(LoadedCritic.load(save(tmp_path, action_dim=5)), SPEC)


def test_a_critic_of_another_state_is_refused_at_once_and_one_that_reads_none_is_not(tmp_path):
    """Not when the arm moves, set by set."""
    with pytest.raises(ValueError, match="state size 12 in the critic, 6 in the robot"):
        RobotCritic(LoadedCritic.load(save(tmp_path / "twelve", state_dim=12)), SPEC)
    robot, found = RobotCritic(LoadedCritic.load(save(tmp_path / "none", state_dim=0)), SPEC), candidates()
    assert np.isfinite(robot.values(robot.prepare(found)[0], found.chunks)).all()


def test_a_critic_with_an_encoder_of_its_own_needs_no_features_but_pictures(sees):
    robot, found = RobotCritic(sees, SPEC), candidates(images=True, features=False)
    context, distance = robot.prepare(found)
    assert robot.values(context, found.chunks).shape == (2, 5)
    assert np.isfinite(distance)
    with pytest.raises(ValueError, match=r"without observation.images.front, observation.images.wrist"):
        robot.prepare(candidates(images=False))


def test_its_own_encoder_looks_once_whatever_the_number_of_candidates(sees):
    calls: list[int] = []
    hook = sees._eyes.backbone.register_forward_hook(lambda *_: calls.append(1))
    robot, found = RobotCritic(sees, SPEC), candidates(k=32, images=True)
    with torch.inference_mode():
        context, _ = robot.prepare(found)
        robot.values(context, found.chunks[:16])
        robot.values(context, found.chunks[16:])
    hook.remove()
    assert len(calls) == 1


MISSING = {"features": ({"context": None}, "shows no features"), "state": ({"observation": None}, "without the obser")}


@pytest.mark.parametrize(("change", "line"), MISSING.values(), ids=MISSING)
def test_a_set_without_what_the_critic_reads_means_the_first_candidate_and_is_told(change, line, critic):
    here = Steering(SteeringConfig(selector="argmax", deadline_s=5.0), SPEC.names, RobotCritic(critic, SPEC))
    decision = here.decide(candidates(**change))
    here.close()
    assert decision.index == 0
    assert any(line in problem for problem in here.problems())


@pytest.mark.parametrize("selector", ["argmax", "lcb", "quantile"])
def test_steering_follows_the_critic_through_the_same_classes_as_the_node(selector, critic):
    found = candidates(k=20)
    robot = RobotCritic(critic, SPEC)
    here = Steering(SteeringConfig(selector=selector, deadline_s=5.0), SPEC.names, robot)
    decision = here.decide(found)
    here.close()
    context, _ = robot.prepare(found)
    values = robot.values(context, found.chunks, 0.1 if selector == "quantile" else None)
    np.testing.assert_allclose(decision.values, values, atol=1e-6)
    best = values.mean(0) - (values.std(0) if selector == "lcb" else 0)
    assert decision.index == best.argmax()


def test_abstention_is_counted(critic):
    here = Steering(
        SteeringConfig(selector="argmax", deadline_s=5.0, novelty=1.0), SPEC.names, RobotCritic(critic, SPEC)
    )
    decision = here.decide(candidates(context=np.full(8, 50.0, np.float32)))
    here.close()
    assert (decision.index, decision.abstained) == (0, "novel")
    assert here.counts["abstained_novel"] == 1


def test_the_names_on_the_card_are_the_arms():
    assert tuple(NAMES) == SPEC.lerobot_action_spec.names
