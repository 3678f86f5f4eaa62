"""The normaliser: what goes in comes out, and nothing is normalised without statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import small_batch, small_config

from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import MissingStatisticsError, Normalizer, compute_stats

RELATIVE = [True, True, False]


def normalizer(state: np.ndarray, actions: np.ndarray, mode: str) -> Normalizer:
    result = Normalizer(3, actions.shape[1:], RELATIVE, mode, mode)
    result.set_stats(compute_stats(state, actions, None, RELATIVE))
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["mean_std", "quantile"]), st.floats(1e-3, 1e3))
def test_denormalising_undoes_normalising(seed: int, mode: str, spread: float) -> None:
    rng = np.random.default_rng(seed)
    state, actions = rng.normal(5, spread, (50, 3)), rng.normal(-2, spread, (50, 4, 3))
    norm = normalizer(state, actions, mode)
    now, chunks = torch.tensor(state).float(), torch.tensor(actions).float()
    back = norm.denormalize_action(norm.normalize_action(chunks, now), now)
    torch.testing.assert_close(back, chunks, rtol=1e-4, atol=1e-4 * spread + 1e-5)


def test_normalised_training_data_has_unit_spread_at_every_step() -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(0, 30, (500, 3))
    actions = state[:, None] + np.cumsum(rng.normal(0, 1, (500, 4, 3)), axis=1)
    norm = normalizer(state, actions, "mean_std")
    z = norm.normalize_action(torch.tensor(actions).float(), torch.tensor(state).float())
    torch.testing.assert_close(z.std(0), torch.ones(4, 3), rtol=0.01, atol=0)


def test_the_gripper_stays_absolute_and_the_arm_is_relative() -> None:
    config = small_config()
    assert config.relative_mask == [True] * 5 + [False]
    state, actions = np.full((4, 6), 50.0), np.full((4, 8, 6), 51.0)
    stats = compute_stats(state, actions, None, config.relative_mask)
    assert stats["action"]["mean"][0].tolist() == [1.0] * 5 + [51.0]


def test_padding_does_not_enter_the_statistics() -> None:
    actions = np.ones((3, 2, 1))
    actions[0, 1] = 1000
    is_pad = np.zeros((3, 2), bool)
    is_pad[0, 1] = True
    assert compute_stats(None, actions, is_pad, [False])["action"]["max"].tolist() == [[1.0], [1.0]]


def test_a_feature_that_never_changes_stays_finite_and_comes_back() -> None:
    state, actions = np.full((10, 3), 100.0), np.full((10, 4, 3), 7.0)
    norm = normalizer(state, actions, "mean_std")
    assert norm.normalize_state(torch.full((1, 3), 100.0)).abs().max() < 1e-3
    now = torch.full((1, 3), 100.0)
    assert torch.allclose(norm.denormalize_action(torch.zeros(1, 4, 3), now), torch.full((1, 4, 3), 7.0))


@pytest.mark.parametrize("bad", [np.full((3, 2, 1), np.nan), np.zeros((0, 2, 1))])
def test_statistics_of_nothing_or_of_nan_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        compute_stats(None, bad, None, [False])


def test_a_policy_without_statistics_refuses_and_names_the_features() -> None:
    config = small_config()
    policy = VLAPolicy(config)
    with pytest.raises(MissingStatisticsError, match=r"observation\.state, action"):
        policy.loss(small_batch(config))
    with pytest.raises(MissingStatisticsError, match=r"no statistics for 'action'; there are: observation\.state"):
        VLAPolicy(config, stats={"observation.state": {"mean": np.zeros(6), "std": np.ones(6)}})


def test_raw_actions_and_foreign_sizes_are_predicted_as_they_are() -> None:
    assert not small_config(action_spec=None).relative
    assert not small_config(action_spec={**small_config().action_spec, "kind": "raw"}).relative
    assert not small_config(state=False).relative
