"""The critics' losses as formulas, each against arithmetic done by hand or its defining property."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mdps import World, settings_of, transitions

from vla_rl.learn.calql import calibrated, conservative
from vla_rl.learn.idql import implicit_weight
from vla_rl.learn.iql import expectile_loss, expectile_weight
from vla_rl.learn.ranks import rank_correlation
from vla_rl.learn.rebrac import actor_loss, distance
from vla_rl.learn.td import backed_up, best_of_n, follow, frozen, regression, target_network, td_target
from vla_rl.learn.value import make_algorithm
from vla_rl.value.aggregate import minimum
from vla_rl.value.heads import HEADS, make_head
from vla_rl.value.support import Support


def test_a_terminal_has_no_future_and_a_time_limit_has_one():
    reward, gamma_n = torch.tensor([-1.0, -1.0]), torch.tensor([0.0, 0.9])
    assert td_target(reward, gamma_n, torch.tensor([-10.0, -10.0])).tolist() == pytest.approx([-1.0, -10.0])


def test_the_target_is_masked_by_the_discount_not_by_the_reward():
    """Hume's released training multiplies by the reward: with -1 a step its target is -1 - gamma Q'."""
    wrong = -1.0 + -1.0 * 0.9 * -10.0
    right = float(td_target(torch.tensor(-1.0), torch.tensor(0.9), torch.tensor(-10.0)))
    assert right == pytest.approx(-10.0)
    assert wrong == pytest.approx(8.0)


@pytest.mark.parametrize("name", ["mse", "hl-gauss", "two-hot"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.7, 0.9])
def test_every_heads_minimum_of_the_expectile_loss_is_the_expectile(name, tau):
    head = make_head(name, Support(-0.5, 1.5, 61))
    q = torch.linspace(0, 1, 11) ** 2
    out = torch.zeros(1, 1, head.size, requires_grad=True)
    optimizer = torch.optim.Adam([out], lr=0.1)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (step // 100)
        optimizer.zero_grad()
        expectile_loss(head, out.expand(1, 11, -1), q, tau, torch.ones(11)).backward()
        optimizer.step()
    found = head.mean(out.detach()).squeeze()
    balance = (expectile_weight(q - found, tau) * (q - found)).sum()  # what defines an expectile
    assert abs(float(balance)) < 0.02


def test_expectile_of_one_half_is_the_mean_and_higher_ones_lean_to_the_best():
    q = torch.tensor([0.0, 0.0, 0.0, 1.0])
    found = {}
    for tau in (0.5, 0.7, 0.9, 0.99):
        v = q.mean()
        for _ in range(300):
            w = expectile_weight(q - v, tau)
            v = (w * q).sum() / w.sum()
        found[tau] = float(v)
    assert found[0.5] == pytest.approx(0.25)
    assert found[0.9] == pytest.approx(0.75)  # w (1 - v) = (1 - w) 3 v with w = 0.9
    assert list(found.values()) == sorted(found.values())


def test_implicit_weights_are_slopes_of_the_loss_over_the_advantage():
    """w = |f'(u)| / |u| of each loss f, by automatic differentiation."""
    u = torch.tensor([-1.5, -0.4, 0.3, 2.0], requires_grad=True)
    side = torch.where(u < 0, 0.3, 0.7)
    losses = {
        "expectile": side * u.square() / 2,
        "quantile": side * u.abs(),
        "exponential": (0.5 * u).exp() - 0.5 * u,
    }
    for name, loss in losses.items():
        (slope,) = torch.autograd.grad(loss.sum(), u, retain_graph=True)
        assert torch.allclose(implicit_weight(u.detach(), name, 0.7, 0.5), slope.abs() / u.detach().abs(), atol=1e-5)


def test_calibration_never_lets_a_policy_value_count_below_the_datas_return():
    q, returns = torch.tensor([[[-3.0, 0.2], [0.9, 0.1]]]), torch.tensor([0.5, 0.5])
    assert torch.allclose(calibrated(q, returns), torch.tensor([[[0.5, 0.5], [0.9, 0.5]]]))


def test_calibrated_values_at_the_bound_are_not_pushed_down_and_uncalibrated_ones_are():
    q = torch.tensor([[[-3.0, 0.2]]], requires_grad=True)
    returns, data = torch.tensor([0.5]), torch.tensor([[0.4]])
    conservative(calibrated(q, returns), data, 1.0).sum().backward()
    assert torch.equal(q.grad, torch.zeros_like(q))
    q.grad = None
    conservative(q, data, 1.0).sum().backward()
    assert (q.grad > 0).all()  # descent lowers every one of them


def test_conservative_term_lies_between_the_mean_and_the_maximum_and_sharpens():
    q, data = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[0.0]])
    soft = [float(conservative(q, data, t)) for t in (100.0, 1.0, 0.01)]
    assert soft[0] == pytest.approx(1.0, abs=0.01)
    assert soft[1] == pytest.approx(math.log((1 + math.e + math.e**2) / 3), abs=1e-5)
    assert soft[2] == pytest.approx(2.0, abs=0.02)


def test_best_of_n_takes_the_pessimistic_value_of_each_before_the_best():
    values = torch.tensor([[[1.0, 0.3]], [[-1.0, 0.2]]])  # (E, B, K): the first is liked by one member only
    head = make_head("mse", Support(-1.0, 1.0, 2))  # outputs are values
    best = best_of_n(head, values.unsqueeze(-1), minimum)
    assert best.value.tolist() == pytest.approx([0.2])
    assert best.out.flatten().tolist() == pytest.approx([0.3, 0.2]), "the chunk that was taken"


@pytest.mark.parametrize("name", HEADS)
def test_what_is_backed_up_has_the_pessimistic_mean_and_the_distribution_around_it(name):
    head = make_head(name, Support(-3.0, 3.0, 61))
    sharp = 4.0 * torch.randn(2, 5, head.size, generator=torch.Generator().manual_seed(0))
    out = sharp if name in ("c51", "two-hot", "hl-gauss") else 0.3 * sharp
    value = head.mean(out).amin(0)
    reward, discount = torch.linspace(-0.1, 0.1, 5), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0])
    target = backed_up(head, out, value, reward, discount)
    if name not in ("c51", "quantile"):
        torch.testing.assert_close(target, td_target(reward, discount, value), rtol=0, atol=1e-5)
        return
    said = target.clamp(min=1e-30).log() if name == "c51" else (target - head.centre) / head.scale
    torch.testing.assert_close(head.mean(said), td_target(reward, discount, value), rtol=0, atol=1e-2)
    spread = head.variance(head.mixed(out))
    torch.testing.assert_close(head.variance(said), discount**2 * spread, rtol=0.05, atol=5e-3)


def test_rows_count_by_their_weight():
    head = make_head("mse", Support(0.0, 1.0, 2))
    out, target = torch.zeros(1, 2, 1), torch.tensor([0.5, 1.0])  # outputs 0 mean 0.5
    assert float(regression(head, out, target, torch.tensor([1.0, 0.0]))) == 0.0
    assert float(regression(head, out, target, torch.tensor([0.0, 1.0]))) == pytest.approx(0.125)


def test_the_actor_sees_the_critics_slope_and_the_critic_does_not_learn_from_it():
    net, x = torch.nn.Linear(3, 1), torch.randn(4, 3, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert x.grad is not None
    assert net.weight.grad is None
    net(x).sum().backward()
    assert net.weight.grad is not None


def test_actor_loss_weighs_imitation_against_q_over_its_mean_size():
    q, imitation = torch.tensor([2.0, -4.0]), torch.tensor([0.5, 1.0])
    assert float(actor_loss(q, imitation, torch.tensor(0.4))) == pytest.approx((0.2 + 0.4) / 2 - (-2 / 3) / 2)


def test_distance_counts_executed_actions_only():
    a, b = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    b[:, 1] = 100.0
    assert float(distance(a, b, torch.tensor([[True, False]]))) == pytest.approx(1.0)


@pytest.mark.parametrize(("algo", "wanted"), [("rebrac", [0.0, 1.0]), ("td3bc", [3.0, 1.0])])
def test_rebracs_actor_goes_up_the_lower_of_two_critics_and_td3s_the_first(tmp_path, algo, wanted):
    line = World((6,), window=2)
    data = transitions(line.record(4), 2, line.goal)
    actor = make_algorithm(settings_of(tmp_path, algo=algo), data, np.arange(len(data)))
    assert actor.followed(torch.tensor([[[3.0], [1.0]], [[0.0], [2.0]]])).squeeze(1).tolist() == wanted


def test_rebracs_penalty_in_the_target_is_of_executed_actions_and_not_of_their_padding(tmp_path):
    line = World((6,), window=2)
    data = transitions(line.record(), 2, line.goal)
    settings = settings_of(tmp_path, algo="rebrac", actor_noise=0.0, critic_bc=1.0)
    rebrac, batch = make_algorithm(settings, data, np.arange(len(data))), data.batch(np.arange(len(data)))
    assert not batch.next_valid.all()
    moved = torch.where(batch.next_valid.unsqueeze(-1), batch.next_chunk, 100.0)
    torch.testing.assert_close(rebrac.following(replace(batch, next_chunk=moved)).value, rebrac.following(batch).value)
    moved = torch.where(batch.next_valid.unsqueeze(-1), 100.0, batch.next_chunk)
    assert (rebrac.following(replace(batch, next_chunk=moved)).value < rebrac.following(batch).value).all()


def test_targets_follow_by_a_share_and_never_by_gradients():
    net = torch.nn.Linear(2, 2)
    target = target_network(net)
    before = target.weight.clone()
    with torch.no_grad():
        net.weight += 1.0
    follow(target, net, 0.25)
    assert torch.allclose(target.weight, before + 0.25)
    assert not any(p.requires_grad for p in target.parameters())


def test_the_target_shares_no_weight_with_the_critic():
    """In LeRobot's SAC the target critic shares the live encoder, and moves with every step."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    mine = {p.data_ptr() for p in net.parameters()}
    assert not mine & {p.data_ptr() for p in target_network(net).parameters()}


def test_ranks_share_ties_and_a_constant_orders_nothing():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 25]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([0, 0, 1, 1], [0, 0, 5, 9]) == pytest.approx(4 / math.sqrt(18))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0
