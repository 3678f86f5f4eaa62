"""StateValue: V of an observation, with a goal where there is one."""

from dataclasses import replace

import pytest
import torch
from critic_samples import D, S, seen, small_config, small_value

from vla_rl.policy.normalize import MissingStatisticsError
from vla_rl.value.inputs import plain_stats
from vla_rl.value.state_value import StateValue


def test_it_is_an_ensemble_of_its_members() -> None:
    value = small_value(ensemble=3)
    features, state, _ = seen(4)
    together = value(features, state)
    assert together.shape == (3, 4)
    learned = {name for name, _ in value.named_parameters()}
    for index in range(3):
        alone = StateValue(replace(value.config, ensemble=1))
        alone.load_state_dict({k: v[index : index + 1] if k in learned else v for k, v in value.state_dict().items()})
        torch.testing.assert_close(together[index], alone(features, state)[0])


def test_its_goal_decides_what_a_state_is_worth() -> None:
    """Distance to the goal, learned on a line: the same state is worth more the nearer its goal is."""
    torch.manual_seed(0)
    value = StateValue(replace(small_config(feature_dim=0, state_dim=1, relative=()).value(goal_dim=1), width=32))
    value.set_stats(plain_stats(state=(1,), goal=(1,)))
    optimizer = torch.optim.Adam(value.parameters(), lr=3e-3)
    for _ in range(200):
        state, goal = 2 * torch.rand(128, 1) - 1, 2 * torch.rand(128, 1) - 1
        target = -4 * (state - goal).abs().squeeze(-1)
        loss = value.head.loss(value.logits(None, state, goal), target.unsqueeze(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    here = torch.full((3, 1), 0.5)
    far, near, there = value(None, here, torch.tensor([[-0.8], [0.0], [0.5]]))[0].tolist()
    assert far < near < there
    assert (far, near, there) == (pytest.approx(-5.2, abs=0.8), pytest.approx(-2, abs=0.8), pytest.approx(0, abs=0.8))


def test_it_takes_the_statistics_of_its_critic_and_refuses_to_go_without() -> None:
    features, state, _ = seen(2)
    value = StateValue(small_config().value())
    with pytest.raises(MissingStatisticsError):
        value(features, state)
    value.set_stats(plain_stats(features=(D,), state=(S,), chunk=(4, 3)))
    assert value(features, state).isfinite().all()


def test_a_missing_goal_is_named() -> None:
    value = StateValue(small_config().value(goal_dim=2))
    value.set_stats(plain_stats(features=(D,), state=(S,), goal=(2,)))
    features, state, _ = seen(2)
    with pytest.raises(ValueError, match=r"reads goal of shape \(B, 2\), and was given nothing"):
        value(features, state)
