"""Rules of reward and the returns that follow from them."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.reward import rule as module
from vla_rl.reward.returns import monte_carlo
from vla_rl.reward.rule import EpisodeColumns, make_reward, reward_names


def episode(steps=5, outcome=True, longest=10, at=None, **columns):
    flags = np.zeros(steps, bool)
    if at is not None:
        flags[at] = True
    given = {"action": np.zeros((steps, 2)), "next.success": flags, **columns}
    return EpisodeColumns(given, {}, outcome, bool(outcome), "lift", longest, "here")


def test_sparse_pays_once_at_the_step_that_leads_to_success():
    assert make_reward("sparse")(episode()).tolist() == [0, 0, 0, 0, 1]
    assert make_reward("sparse", success=5)(episode(at=2)).tolist() == [0, 0, 5, 0, 0]
    assert make_reward("sparse")(episode(outcome=False)).tolist() == [0] * 5


def test_a_step_penalty_counts_the_steps_that_are_still_needed():
    rule = make_reward("step-penalty")
    success, failure = rule(episode()), rule(episode(outcome=False))
    assert monte_carlo(success, 1.0, terminal=True).tolist() == [-4, -3, -2, -1, 0]
    assert failure.tolist() == [-1] * 5
    returns = monte_carlo(failure, 0.9, terminal=False, tail=rule.tail)
    np.testing.assert_allclose(returns, -10.0, rtol=1e-5)
    assert (monte_carlo(success, 0.9, terminal=True) > returns).all(), "a failure is worth less, however it was cut"


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30), st.booleans())
def test_dense_rewards_add_up_to_the_progress_that_was_left(progress, outcome):
    rule = make_reward("dense")
    reward = rule(episode(len(progress), outcome, progress=np.float32(progress)[:, None]))
    left = (1.0 if outcome else progress[-1]) - np.float32(progress)
    np.testing.assert_allclose(monte_carlo(reward, 1.0, terminal=outcome), left, atol=1e-4)
    assert reward.min() >= rule.low
    assert reward.max() <= rule.high


def test_dense_can_add_the_sparse_success_and_needs_its_column():
    progress = np.float32([0.0, 0.5, 0.9])
    assert make_reward("dense", success=2)(episode(3, True, progress=progress)).sum() == pytest.approx(3.0)
    with pytest.raises(ValueError, match="here has no column 'progress' for a dense reward; it has: action"):
        make_reward("dense")(episode())


def test_time_to_success_ranks_every_success_above_every_failure_and_quick_above_slow():
    rule = make_reward("time-to-success")
    first = {
        (steps, outcome): float(monte_carlo(rule(episode(steps, outcome)), 1.0, terminal=outcome)[0])
        for steps in (1, 5, 10)
        for outcome in (True, False)
    }
    assert first[1, True] == 0.0
    assert first[10, False] == -1.0
    assert first[1, True] > first[5, True] > first[10, True] > max(first[n, False] for n in (1, 5, 10))
    assert all(-1.0 <= value <= 0.0 for value in first.values())


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.booleans()
)  # fmt: skip
def test_monte_carlo_returns_are_the_discounted_sums(reward, gamma, terminal):
    slow = [sum(gamma**i * r for i, r in enumerate(reward[t:])) for t in range(len(reward))]
    fast = monte_carlo(np.float32(reward), gamma, terminal=terminal)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=10), st.sampled_from([0.5, 0.9]))
def test_a_repeated_tail_is_what_a_much_longer_episode_would_have_earned(reward, gamma):
    longer = [*reward, *[reward[-1]] * 400]
    expected = monte_carlo(np.float32(longer), gamma, terminal=True)[: len(reward)]
    np.testing.assert_allclose(
        monte_carlo(np.float32(reward), gamma, terminal=False, tail="repeat"), expected, atol=1e-3
    )


def test_an_endless_return_is_refused():
    with pytest.raises(ValueError, match="gamma 1 gives an episode that was cut an endless return"):
        monte_carlo(np.float32([-1, -1]), 1.0, terminal=False, tail="repeat")


def test_an_unknown_outcome_is_no_failure():
    for name in ("sparse", "step-penalty", "time-to-success"):
        with pytest.raises(ValueError, match="here does not say which episodes succeeded"):
            make_reward(name)(episode(outcome=None))


def test_names_and_options_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(ValueError, match="unknown reward 'joy'; there are: sparse, step-penalty, dense"):
        make_reward("joy")
    with pytest.raises(ValueError, match=r"reward 'sparse' does not take .*its options: success"):
        make_reward("sparse", bonus=3)


@pytest.mark.parametrize(
    ("name", "option"), [("sparse", "success"), ("step-penalty", "penalty"), ("time-to-success", "failure")]
)
@pytest.mark.parametrize("value", [-20.0, float("nan")])
def test_a_sign_that_would_make_failing_pay_is_refused(name, option, value):
    """A penalty of -1 made a failure worth 100 and a success 0."""
    with pytest.raises(ValueError, match=f"not {value:g}"):
        make_reward(name, **{option: value})


def test_another_package_adds_a_rule_by_an_entry_point(monkeypatch):
    point = EntryPoint("twice", "vla_rl.reward.sparse:Sparse", module.GROUP)
    monkeypatch.setattr(module, "entry_points", lambda group: [point] if group == module.GROUP else [])
    assert "twice" in reward_names()
    assert make_reward("twice", success=2.0)(episode()).sum() == 2.0
    with pytest.raises(ValueError, match=r"reward 'twice' does not take .*its options: success, unmarked"):
        make_reward("twice", bonus=3)


@given(st.sampled_from(["sparse", "step-penalty", "dense", "time-to-success"]), st.integers(1, 9), st.booleans())
def test_rewards_lie_in_the_range_that_a_support_is_made_from(name, steps, outcome):
    rule = make_reward(name)
    progress = np.linspace(0, 0.9, steps, dtype=np.float32)
    reward = rule(episode(steps, outcome, progress=progress))
    assert reward.dtype == np.float32
    assert reward.shape == (steps,)
    assert rule.low <= reward.min() <= reward.max() <= rule.high
