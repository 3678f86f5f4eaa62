"""Perturbed draws: where a policy gives few answers, others are made near them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import small_policy

from vla_rl.policy.perturb import PerturbConfig, fill, perturbed
from vla_rl.policy.served import OwnPolicy

SPREAD = np.array([1.0, 0.5, 0.0], np.float32)


def drawn(count: int, horizon: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, horizon, 3)).astype(np.float32)


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_the_draws_come_first_and_unchanged_and_others_fill_up_in_turn(count, k, rise):
    chunks = fill(drawn(count), k, SPREAD, rise, np.random.default_rng(1))
    assert chunks.shape == (k, 8, 3)
    np.testing.assert_array_equal(chunks[:count], drawn(count)[:k])
    for i in range(count, k):
        offset = chunks[i] - drawn(count)[(i - count) % count]
        assert (offset[:, 2] == 0).all(), "what does not vary is not perturbed"
        np.testing.assert_allclose(offset[rise - 1 :], np.broadcast_to(offset[-1], offset[rise - 1 :].shape), atol=1e-5)
        np.testing.assert_allclose(offset[0], offset[-1] / min(rise, 8) if rise <= 8 else offset[0], atol=1e-5)


def test_offsets_spread_as_much_as_they_are_told_to():
    chunks = fill(drawn(1), 3001, SPREAD, 4, np.random.default_rng(1))
    offsets = (chunks - drawn(1))[1:, -1]
    np.testing.assert_allclose(offsets.std(0), SPREAD, rtol=0.06)
    np.testing.assert_allclose(offsets.mean(0), 0, atol=0.06)


def test_a_policy_that_draws_once_is_given_candidates_that_depend_on_the_seed_alone():
    policy = small_policy()
    served = perturbed(OwnPolicy(policy), PerturbConfig(draws=1, scale=0.3))
    random = np.random.default_rng(0)
    images = {key: random.integers(0, 256, (32, 32, 3), np.uint8) for key in policy.config.image_features}
    context = served.encode([images | {"observation.state": np.zeros(6, np.float32)}], "lift the red cube")
    many = served.sample(context, 6, seed=3)
    np.testing.assert_array_equal(many[:2], served.sample(context, 2, seed=3))
    np.testing.assert_array_equal(many[0], OwnPolicy(policy).sample(context, 1, seed=3)[0])
    assert len({chunk.tobytes() for chunk in many}) == 6
    assert (many[1:, :, 5] == many[0, :, 5]).all(), "the gripper is left alone"
    assert "perturbed" in served.notes[-1]


def test_without_a_number_of_draws_the_policy_stays_as_it_is():
    served = OwnPolicy(small_policy())
    assert perturbed(served, PerturbConfig()) is served


def test_numbers_that_make_no_sense_are_refused():
    for bad in ({"draws": -1}, {"scale": -0.1}, {"rise": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            PerturbConfig(**bad)
    served = OwnPolicy(small_policy())
    served.deterministic = True
    with pytest.raises(ValueError, match="always answers the same: 1 draw is enough, not 2"):
        perturbed(served, PerturbConfig(draws=2))
