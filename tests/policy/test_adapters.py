"""Adapters: LeRobot's own policies are encoded once for any number of candidates, and draw what LeRobot draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_lerobot_tiny import CAMERAS, make, small_vision_language
from policy_samples import small_policy

from vla_rl.policy.adapters import LeRobotPolicy, adapt
from vla_rl.policy.folder import LeRobotParts
from vla_rl.policy.served import OwnPolicy

ONCE = ("act", "diffusion", "smolvla", "pi0", "pi05")
STOCHASTIC = ("diffusion", "smolvla", "pi0", "pi05")
EYES = {
    "act": lambda policy: policy.model.backbone,
    "diffusion": lambda policy: policy.diffusion.rgb_encoder[0],
    "smolvla": lambda policy: policy.model.vlm_with_expert.vlm.model.vision_model,
    "pi0": lambda policy: policy.model.paligemma_with_expert.paligemma.model.vision_tower,
    "pi05": lambda policy: policy.model.paligemma_with_expert.paligemma.model.vision_tower,
}


def look(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    images = {f"observation.images.{name}": random.integers(0, 256, (96, 96, 3), np.uint8) for name in CAMERAS}
    return images | {"observation.state": random.normal(size=6).astype(np.float32)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """One tiny policy of each kind, made when it is first asked for."""
    made: dict[str, LeRobotParts] = {}
    patch = pytest.MonkeyPatch()
    changes = small_vision_language(patch, tmp_path_factory.mktemp("smolvlm"))
    changes["diffusion"] = {"noise_scheduler_type": "DDIM"}

    def get(kind: str) -> LeRobotParts:
        if kind not in made:
            made[kind] = make(kind, **changes.get(kind, {}))
        return made[kind]

    yield get
    patch.undo()


def count(module, calls: list[int]):
    return module.register_forward_hook(lambda *_: calls.append(1))


@pytest.mark.parametrize("kind", ONCE)
@pytest.mark.parametrize("k", [1, 5])
def test_the_cameras_are_looked_through_once_whatever_the_number_of_candidates(parts, kind, k):
    policy, calls = parts(kind).policy, []
    served = adapt(parts(kind))
    hook = count(EYES[kind](policy), calls)
    try:
        context = served.encode([look()], "lift the red cube")
        once = len(calls)
        served.sample(context, k, seed=3)
        served.sample(context, 2, seed=4)
    finally:
        hook.remove()
    assert len(calls) == once
    assert 1 <= once <= len(CAMERAS)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_single_candidate_is_bit_for_bit_what_lerobot_draws_from_that_noise(parts, kind):
    given, served = parts(kind), adapt(parts(kind))
    config, seen = given.policy.config, look(1)
    chunk = served.sample(served.encode([seen], "lift the red cube"), 1, seed=7)
    length = config.horizon if kind == "diffusion" else config.chunk_size
    width = 6 if kind == "diffusion" else config.max_action_dim
    noise = torch.randn((length, width), generator=torch.Generator().manual_seed(7))[None]
    batch = {k: torch.from_numpy(v)[None] for k, v in seen.items() if v.ndim == 1}
    batch |= {k: torch.from_numpy(v).permute(2, 0, 1)[None] / 255 for k, v in seen.items() if v.ndim == 3}
    ready = given.before({**batch, "task": ["lift the red cube"]})
    given.policy.reset()
    if kind == "diffusion":
        first = given.policy.select_action(dict(ready), noise=noise)
        theirs = torch.stack([first, *given.policy._queues["action"]], dim=1)
    else:
        theirs = given.policy.predict_action_chunk(dict(ready), noise=noise)
    np.testing.assert_array_equal(chunk, given.after(theirs).numpy())


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_candidates_differ_are_repeatable_and_the_first_ones_do_not_depend_on_how_many_follow(parts, kind):
    served = adapt(parts(kind))
    context = served.encode([look()], "lift the red cube")
    many, few = served.sample(context, 6, seed=5), served.sample(context, 2, seed=5)
    assert many.shape == (6, *few.shape[1:])
    assert np.abs(many[0] - many[1]).max() > 1e-4
    np.testing.assert_allclose(many[:2], few, atol=1e-4)
    np.testing.assert_array_equal(few, served.sample(context, 2, seed=5))
    assert np.abs(many[0] - served.sample(context, 1, seed=6)[0]).max() > 1e-4


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_features_are_of_the_observation_and_not_of_the_noise(parts, kind):
    served = adapt(parts(kind))
    here, again, there = (served.encode([look(s)], "lift the red cube") for s in (0, 0, 1))
    features = served.features(here)
    assert features.ndim == 1
    np.testing.assert_array_equal(features, served.features(again))
    assert np.abs(features - served.features(there)).max() > 1e-6
    assert served.features(here, "no such layer") is None


def test_act_says_that_it_always_answers_the_same_and_does(parts):
    served = adapt(parts("act"))
    chunks = served.sample(served.encode([look()], "lift"), 4, seed=1)
    assert served.deterministic
    assert "always answers the same" in served.notes[0]
    np.testing.assert_array_equal(chunks, np.repeat(chunks[:1], 4, axis=0))


def test_a_policy_of_unknown_structure_is_served_and_said_to_encode_anew(parts):
    given = parts("diffusion")
    served, calls = LeRobotPolicy(given), []
    hook = count(EYES["diffusion"](given.policy), calls)
    context = served.encode([look()], "lift")
    chunks = served.sample(context, 3, seed=2)
    hook.remove()
    assert len(calls) == 3
    assert "encodes an observation anew for each candidate" in served.notes[0]
    np.testing.assert_array_equal(chunks[:2], served.sample(context, 2, seed=2))
    assert served.features(context) is None


def test_a_compiled_sampler_is_not_entered(parts):
    given = parts("smolvla")
    given.policy.config.compile_model = True
    try:
        assert "anew" in adapt(given).notes[0]
    finally:
        given.policy.config.compile_model = False


def test_several_frames_reach_the_diffusion_policy_in_their_order():
    served = adapt(make("diffusion", noise_scheduler_type="DDIM", n_obs_steps=2))
    there, back = (served.encode(pair, "") for pair in ([look(1), look(2)], [look(2), look(1)]))
    assert there.shape == back.shape
    assert np.abs(served.sample(there, 1, 0) - served.sample(back, 1, 0)).max() > 1e-6
    only = served.encode([look(2)], "")
    np.testing.assert_array_equal(only.numpy(), served.encode([look(2), look(2)], "").numpy())


def test_a_slow_sampler_is_pointed_out():
    assert "100 steps" in adapt(make("diffusion", num_train_timesteps=100)).notes[0]
    assert adapt(make("diffusion", num_train_timesteps=100, num_inference_steps=10)).notes == []


def test_our_own_policy_is_encoded_once_and_its_first_candidates_do_not_depend_on_how_many_follow():
    policy, calls = small_policy(), []
    hook = count(policy.backbone, calls)
    served = OwnPolicy(policy)
    seen = {key: np.resize(value, (32, 32, 3)) if value.ndim == 3 else value for key, value in look().items()}
    context = served.encode([seen], "lift the red cube")
    many = served.sample(context, 6, seed=5)
    hook.remove()
    assert len(calls) == 1
    np.testing.assert_allclose(many[:2], served.sample(context, 2, seed=5), atol=1e-4)
    assert {served.features(context, layer).ndim for layer in ("pooled", "tokens", "mean_tokens", "looks")} == {1}
    with pytest.raises(ValueError, match="unknown layer 'last'; there are: pooled"):
        served.features(context, "last")
