"""Support: from reward and discount, wide enough for what it is to say, and loud where it is not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.value.heads import HLGauss
from vla_rl.value.support import Support


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_it_holds_every_return_that_the_rewards_allow(seed: int, horizon: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    low, high = -2.0, 0.5
    steps = int(torch.randint(1, horizon + 1, (), generator=generator))
    rewards = low + (high - low) * torch.rand(steps, generator=generator).round()
    paid = float(torch.rand((), generator=generator))
    value = sum(gamma**i * float(r) for i, r in enumerate(rewards)) + gamma ** (steps - 1) * paid
    support = Support.from_reward(low, high, gamma, horizon, final=(0.0, 1.0))
    assert support.low <= value <= support.high


def test_a_cost_of_one_a_step_without_end_needs_its_geometric_sum() -> None:
    support = Support.from_reward(-1, 0, 0.98, bins=106)
    width = (support.high - support.low) / 106
    assert (support.low + 3 * width, support.high - 3 * width) == (pytest.approx(-50), pytest.approx(0))


def test_a_sparse_success_needs_zero_to_one_whatever_the_horizon() -> None:
    support = Support.from_reward(0, 0, 0.99, final=(0, 1), bins=106)
    assert (support.low, support.high) == (pytest.approx(-0.03), pytest.approx(1.03))


def test_at_both_ends_of_the_returns_hl_gauss_says_what_it_was_told() -> None:
    """Without the margin the histogram of an extreme return is cut in half, and its mean lies half a bin inside."""
    ends = torch.tensor([-50.0, 0.0])
    head = HLGauss(Support.from_reward(-1, 0, 0.98))
    torch.testing.assert_close(head.mean(head.histogram(ends).log()), ends, rtol=0, atol=2e-3)
    tight = HLGauss(Support(-50.0, 0.0))
    assert float((tight.mean(tight.histogram(ends).log()) - ends).abs().min()) > 0.2


def test_clipped_targets_are_counted_and_the_warning_names_the_range_needed() -> None:
    support = Support(-1.0, 0.0)
    targets = torch.cat([torch.full((96,), -0.5), torch.tensor([-3.25, -2.0, 0.5, -1.5])])
    assert support.clipped_fraction(targets) == pytest.approx(0.04)
    warning = support.warning(targets)
    assert warning is not None
    assert "4.0% of the value targets lie outside the support [-1, 0]" in warning
    assert "they need [-3.25, 0.5]" in warning
    assert Support(-3.25, 0.5).warning(targets) is None


def test_one_target_in_a_hundred_may_be_clipped_in_silence() -> None:
    targets = torch.full((100,), 0.5)
    targets[0] = 9.0
    assert Support(0.0, 1.0).warning(targets) is None
    targets[1] = 9.0
    assert Support(0.0, 1.0).warning(targets) is not None


@pytest.mark.parametrize(
    ("low", "high", "bins"), [(0, 0, 51), (1, 0, 51), (-math.inf, 0, 51), (0, math.nan, 51), (0, 1, 1)]
)
def test_what_is_no_interval_is_refused(low: float, high: float, bins: int) -> None:
    with pytest.raises(ValueError, match="a value support needs"):
        Support(low, high, bins)


def test_returns_without_a_bound_are_refused_and_so_are_returns_that_cannot_differ() -> None:
    with pytest.raises(ValueError, match="name the horizon"):
        Support.from_reward(-1, 0, 1.0)
    with pytest.raises(ValueError, match="nothing to learn"):
        Support.from_reward(0, 0, 0.9)


def test_observed_returns_lie_inside() -> None:
    returns = torch.tensor([-7.0, 3.0, 1.0])
    support = Support.from_returns(returns, bins=56)
    assert (support.low, support.high) == (pytest.approx(-7.6), pytest.approx(3.6))
