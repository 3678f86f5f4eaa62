"""VLAPolicy: one encoding, any number of chunks, LeRobot's interface."""

import copy
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from policy_samples import small_batch, small_config, small_policy
from torch import Tensor

from vla_rl.policy.conditioning import without_content
from vla_rl.policy.features import FeatureMismatchError
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.words import tokenize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def policy() -> VLAPolicy:
    return small_policy()


@pytest.fixture(scope="module")
def batch(policy: VLAPolicy) -> dict[str, Any]:
    return small_batch(policy.config)


def first(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in batch.items()}


def test_the_backbone_runs_once_and_the_head_once_a_step_however_many_candidates(policy: VLAPolicy) -> None:
    calls = {"backbone": 0, "head": 0}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
        for name, module in (("backbone", policy.backbone), ("head", policy.head))
    ]
    chunks = policy.sample(policy.encode(small_batch(policy.config, 2)), 32, generator())
    for hook in hooks:
        hook.remove()
    assert chunks.shape == (2, 32, 8, 6)
    assert calls == {"backbone": 1, "head": policy.config.inference_steps}


def test_one_candidate_with_fixed_noise_is_the_plain_policys_chunk_bit_for_bit(policy: VLAPolicy, batch: dict) -> None:
    noise = torch.randn(4, 8, 6)
    plain = policy.predict_action_chunk(batch, noise=noise)
    sampled = policy.sample(policy.encode(batch), 1, noise=noise[:, None])
    assert torch.equal(sampled[:, 0], plain)


def test_the_same_generator_draws_the_same_chunks_and_another_does_not(policy: VLAPolicy, batch: dict) -> None:
    context = policy.encode(batch)
    assert torch.equal(policy.sample(context, 3, generator(1)), policy.sample(context, 3, generator(1)))
    assert not torch.equal(policy.sample(context, 3, generator(1)), policy.sample(context, 3, generator(2)))


def test_with_a_generator_each_a_row_does_not_depend_on_its_batch(policy: VLAPolicy, batch: dict) -> None:
    together = policy.sample(policy.encode(batch), 2, [generator(i) for i in range(4)])
    alone = policy.sample(policy.encode(first(batch)), 2, [generator(0)])
    torch.testing.assert_close(together[0], alone, rtol=1e-4, atol=1e-3)


def test_one_observation_without_a_batch_axis_gives_chunks_without_one(policy: VLAPolicy, batch: dict) -> None:
    assert policy.sample(policy.encode(first(batch)), 5).shape == (5, 8, 6)


def test_images_as_bytes_and_as_floats_mean_the_same(policy: VLAPolicy, batch: dict) -> None:
    floats = {k: v.float() / 255 if k in policy.config.image_features else v for k, v in batch.items()}
    noise = torch.randn(4, 8, 6)
    torch.testing.assert_close(
        policy.predict_action_chunk(batch, noise), policy.predict_action_chunk(floats, noise), rtol=1e-3, atol=1e-2
    )


def test_precomputed_words_replace_the_text(policy: VLAPolicy, batch: dict) -> None:
    tokens = {k: v for k, v in batch.items() if k != "task"} | {"task_tokens": tokenize(batch["task"])}
    assert torch.equal(policy.encode(tokens).pooled, policy.encode(batch).pooled)


def test_a_prefix_comes_back_unchanged_in_every_candidate(policy: VLAPolicy, batch: dict) -> None:
    prefix = batch["action"][:, :3]
    chunks = policy.sample(policy.encode(batch), 4, generator(), prefix=prefix)
    assert torch.equal(chunks[:, :, :3], prefix[:, None].expand(-1, 4, -1, -1))
    one = policy.sample(policy.encode(first(batch)), 4, generator(), prefix=prefix[0])
    assert torch.equal(one[:, :3], prefix[0].expand(4, -1, -1))


def test_a_guide_and_an_initial_chunk_change_what_is_drawn(policy: VLAPolicy, batch: dict) -> None:
    context = policy.encode(first(batch))
    plain = policy.sample(context, 2, generator())
    pushed = policy.sample(context, 2, generator(), guide=lambda x: torch.full_like(x, 0.05))
    assert (pushed - plain).mean() > 0
    assert policy.sample(context, 2, generator(), init=plain).shape == plain.shape


def test_chunks_stay_within_the_range_of_the_data_whatever_the_weights_say(policy: VLAPolicy, batch: dict) -> None:
    wild = copy.deepcopy(policy)
    torch.nn.init.constant_(wild.head.action_out.bias, 1e6)
    context = wild.encode(batch)
    relative = wild.sample(context, 2, generator())[..., :5] - batch["observation.state"][:, None, None, :5]
    assert relative.abs().max() < 50


def test_guidance_follows_its_definition() -> None:
    plain = small_policy(context_dropout=0.1, prediction="epsilon")
    batch = small_batch(plain.config)
    twice = copy.deepcopy(plain)
    twice.config.guidance_scale = 2.0
    x, t = torch.randn(4, 1, 8, 6), torch.full((1, 1), 50)
    context = plain.encode(batch)
    with torch.no_grad():
        free = plain.head(x, t, plain.head.memory(without_content(context.features, plain.null_context)))
        full = plain.head(x, t, plain.head.memory(context.features))
        torch.testing.assert_close(twice._predictor(context)(x, t), 2 * full - free)


@pytest.mark.parametrize(
    "changes",
    [{"n_obs_steps": 2}, {"use_state": False}, {"state": False}, {"cameras": ()}, {"context_dropout": 0.5},
     {"prediction": "epsilon"}, {"prediction": "v_prediction"}, {"action_norm": "quantile"}, {"image_size": 24}],
    ids=str,
)  # fmt: skip
def test_every_variant_learns_from_a_batch_and_acts(changes: dict[str, Any]) -> None:
    policy = small_policy(**changes).train()
    batch = small_batch(policy.config)
    loss, info = policy(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert isinstance(info["diffusion_loss"], float)
    policy.eval().reset()
    now = {k: v[:, -1] if policy.config.n_obs_steps > 1 and k.startswith("obs") else v for k, v in batch.items()}
    assert policy.select_action(now).shape == (4, 6)


def test_select_action_executes_n_action_steps_of_a_chunk_and_reset_forgets_them(batch: dict) -> None:
    policy, calls = small_policy(), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    policy.backbone.register_forward_hook(count)
    for _ in range(5):
        policy.select_action(batch)
    assert calls == 2
    policy.reset()
    policy.select_action(batch)
    assert calls == 3


def test_padding_and_weights_decide_what_counts(policy: VLAPolicy, batch: dict) -> None:
    def loss(**changes: Tensor) -> Tensor:
        torch.manual_seed(0)
        return policy.loss({**batch, **changes})[0]

    assert loss(action_is_pad=torch.ones(4, 8, dtype=torch.bool)) == 0
    assert loss(action_is_pad=torch.zeros(4, 8, dtype=torch.bool)) == loss()
    assert loss(weight=torch.zeros(4)) == 0
    assert policy.loss(batch, reduction="none")[0].shape == (4,)


def test_labels_teach_where_to_look_and_points_out_of_view_do_not(policy: VLAPolicy, batch: dict) -> None:
    labels = {"labels.pixels.front": torch.zeros(4, 4), "labels.points": torch.zeros(4, 6)}
    assert {"pixel_loss", "attention_loss", "point_loss"} <= policy.loss(batch | labels)[1].keys()
    unseen = policy.loss(batch | {"labels.pixels.front": torch.full((4, 4), 2.0)})[1]
    assert unseen["pixel_loss"] == unseen["attention_loss"] == 0


def test_rows_without_labels_change_no_auxiliary_loss(policy: VLAPolicy, batch: dict) -> None:
    labels = {"labels.pixels.front": torch.rand(4, 4), "labels.points": torch.rand(4, 6)}
    half = {key: torch.cat([value[:2], torch.full_like(value[2:], torch.nan)]) for key, value in labels.items()}

    def auxiliary(batch: dict) -> list[float]:
        torch.manual_seed(0)
        info = policy.loss(batch)[1]
        return [info[f"{name}_loss"].item() for name in ("pixel", "attention", "point")]

    alone = {key: value[:2] for key, value in batch.items()}
    known = auxiliary(alone | {key: value[:2] for key, value in labels.items()})
    assert auxiliary(batch | half) == pytest.approx(known, rel=1e-4)


def test_weights_can_be_copied_and_averaged(policy: VLAPolicy, batch: dict) -> None:
    average = copy.deepcopy(policy)
    with torch.no_grad():
        for ours, theirs in zip(average.parameters(), small_policy(1).parameters(), strict=True):
            ours.lerp_(theirs, 0.5)
    assert torch.isfinite(average.predict_action_chunk(batch)).all()


def test_what_does_not_fit_is_told_in_one_line(policy: VLAPolicy, batch: dict) -> None:
    with pytest.raises(ValueError, match=r"the batch lacks observation.images.wrist; it has: .*front"):
        policy.encode({k: v for k, v in batch.items() if "wrist" not in k})
    names = policy.config.state_names
    fits: dict[str, Any] = {"cameras": ["front", "wrist", "top"], "state_dim": 6, "action_dim": 6, "fps": 30.0}
    policy.check_features(**fits, state_names=names, action_names=names)
    for change, message in [
        ({"cameras": ["top"]}, "cameras front, wrist in the policy, top in the environment"),
        ({"fps": 10.0}, r"fps 30.0 in the policy, 10.0 in the environment"),
        ({"state_dim": 7}, "state size 6 in the policy, 7 in the environment"),
        ({"action_names": names[::-1]}, "action names"),
    ]:
        with pytest.raises(FeatureMismatchError, match=message):
            policy.check_features(**fits | change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet"}, "unknown backbone 'resnet'; there are: tiny, hf:"),
        ({"head": "XL"}, "unknown head 'XL'; there are: tiny, S, B, L"),
        ({"vision_channels": [16]}, r"vision_channels are two widths, at strides 4 and 8, got \[16\]"),
        ({"scheduler": "euler"}, "unknown scheduler 'euler'; there are: ddim, ddpm, dpm-solver"),
        ({"prediction": "x"}, "unknown prediction 'x'"),
        ({"n_action_steps": 9}, "n_action_steps 9 must lie in 1..horizon"),
    ],
)
def test_an_unknown_choice_names_those_that_exist(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


def test_an_input_that_the_policy_does_not_read_is_refused_by_name() -> None:
    config = small_config()
    config.input_features["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (4,))
    with pytest.raises(ValueError, match=r"reads cameras and 'observation.state', not 'observation.environment_state'"):
        VLAPolicy(config)
