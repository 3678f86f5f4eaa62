"""Heads: HL-Gauss is its closed form, and every head recovers the distributions that it is fitted to."""

import math
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.value.heads import HEADS, HLGauss, make_head
from vla_rl.value.support import Support

SUPPORT = Support(-3.0, 2.0, 51)
DISTRIBUTIONS = [name for name in HEADS if name != "mse"]


def closed_form(target: float, support: Support) -> torch.Tensor:
    """A normal of 0.75 bin widths: its mass in every bin, over its mass in the support."""
    width = (support.high - support.low) / support.bins
    normal = NormalDist(min(max(target, support.low), support.high), 0.75 * width)
    below = [normal.cdf(support.low + i * width) for i in range(support.bins + 1)]
    mass = [b - a for a, b in pairwise(below)]
    return torch.tensor(mass, dtype=torch.float64) / (below[-1] - below[0])


def check_hl_gauss(head: HLGauss) -> None:
    """What HL-Gauss promises: the closed form for targets inside and outside, and bins whose centres are centres."""
    width = (SUPPORT.high - SUPPORT.low) / SUPPORT.bins
    targets = torch.linspace(SUPPORT.low - 1, SUPPORT.high + 1, 60)
    wanted = torch.stack([closed_form(float(t), SUPPORT) for t in targets]).float()
    torch.testing.assert_close(head.histogram(targets), wanted, rtol=1e-4, atol=1e-5)
    centres = torch.tensor([SUPPORT.low + (i + 0.5) * width for i in range(SUPPORT.bins)])
    torch.testing.assert_close(head.centres, centres)
    inside = torch.linspace(SUPPORT.low + 4 * width, SUPPORT.high - 4 * width, 40)
    torch.testing.assert_close(head.mean(head.histogram(inside).log()), inside, rtol=0, atol=2e-3 * width)


class WideSigma(HLGauss):
    """Feeds sqrt(2) sigma to the normal distribution function."""

    def __init__(self, support: Support) -> None:
        super().__init__(support)
        self.sigma *= math.sqrt(2)


class WrongCentres(HLGauss):
    """Takes half the difference of two edges for their middle."""

    def __init__(self, support: Support) -> None:
        super().__init__(support)
        self.centres = (self.edges[:-1] - self.edges[1:]) / 2


class SigmaInValues(HLGauss):
    """Takes 0.75 for a value rather than for bin widths."""

    def __init__(self, support: Support) -> None:
        super().__init__(support)
        self.sigma = 0.75


class Unbounded(HLGauss):
    """Does not clamp targets to the support."""

    def histogram(self, target: torch.Tensor) -> torch.Tensor:
        below = torch.erf((self.edges - target.unsqueeze(-1)) / (math.sqrt(2) * self.sigma))
        return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])


class Unnormalised(HLGauss):
    """Leaves the mass outside the support out."""

    def histogram(self, target: torch.Tensor) -> torch.Tensor:
        target = target.clamp(self.support.low, self.support.high).unsqueeze(-1)
        return torch.erf((self.edges - target) / (math.sqrt(2) * self.sigma)).diff(dim=-1) / 2


def test_hl_gauss_is_the_closed_form() -> None:
    check_hl_gauss(HLGauss(SUPPORT))


@pytest.mark.parametrize("defect", [WideSigma, WrongCentres, SigmaInValues, Unbounded, Unnormalised])
def test_each_known_defect_of_hl_gauss_breaks_a_promise(defect: type[HLGauss]) -> None:
    with pytest.raises(AssertionError):
        check_hl_gauss(defect(SUPPORT))


def test_about_six_bins_receive_mass() -> None:
    histogram = HLGauss(SUPPORT).histogram(torch.linspace(-2, 1, 100))
    assert 4 <= float((histogram > 1e-3).sum(-1).float().mean()) <= 6


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 2))
def test_two_hot_shares_a_return_between_its_neighbours_and_keeps_it_exactly(target: float) -> None:
    head = make_head("two-hot", SUPPORT)
    histogram = head.histogram(torch.tensor(target))
    assert (histogram > 0).sum() <= 2
    torch.testing.assert_close(histogram @ head.centres, torch.tensor(target), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["two-hot", "hl-gauss", "c51"])
@pytest.mark.parametrize("target", [-9.0, -3.0, 2.0, 9.0])
def test_a_histogram_sums_to_one_at_and_beyond_the_edges(name: str, target: float) -> None:
    total = make_head(name, SUPPORT).histogram(torch.tensor(target)).sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def fitted(name: str, returns: torch.Tensor, support: Support) -> torch.Tensor:
    """The output (size,) of least loss on sampled returns."""
    head = make_head(name, support)
    out = torch.zeros(head.size, requires_grad=True)
    optimizer = torch.optim.Adam([out], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(out.expand(len(returns), -1), returns).mean().backward()
        optimizer.step()
        schedule.step()
    return out.detach()


GENERATOR = torch.Generator().manual_seed(0)
RETURNS = torch.cat(
    [-1.5 + 0.25 * torch.randn(600, generator=GENERATOR), 0.5 + 0.4 * torch.randn(1400, generator=GENERATOR)]
)


@cache
def fitted_to_returns(name: str) -> torch.Tensor:
    return fitted(name, RETURNS, SUPPORT)


@pytest.mark.parametrize("name", HEADS)
def test_a_fitted_head_knows_the_mean(name: str) -> None:
    out = fitted_to_returns(name)
    assert float(make_head(name, SUPPORT).mean(out)) == pytest.approx(float(RETURNS.mean()), abs=0.03)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_fitted_head_knows_spread_and_lower_quantiles(name: str) -> None:
    head, out = make_head(name, SUPPORT), fitted_to_returns(name)
    assert float(head.variance(out)) == pytest.approx(float(RETURNS.var()), rel=0.1)
    for tau in (0.05, 0.1, 0.25, 0.5, 0.9):
        assert float(head.quantile(out, tau)) == pytest.approx(float(RETURNS.quantile(tau)), abs=0.1), tau


@pytest.mark.parametrize("name", ["two-hot", "hl-gauss", "c51"])
def test_a_certain_return_has_no_variance(name: str) -> None:
    head = make_head(name, SUPPORT)
    out = head.histogram(head.centres[20:30]).clamp(min=1e-30).log()
    assert float(head.variance(out).max()) < 1e-3 * head.width


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_rise_with_tau_and_frame_the_mean(name: str) -> None:
    head = make_head(name, SUPPORT)
    out = torch.randn(7, 2, head.size, generator=torch.Generator().manual_seed(2))
    rising = torch.stack([head.quantile(out, tau) for tau in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)])
    assert (rising.diff(dim=0) >= 0).all()
    assert ((rising[0] <= head.mean(out)) & (head.mean(out) <= rising[-1])).all()


def test_an_uncertain_reward_backed_up_gives_c51_the_whole_distribution() -> None:
    """Rewards of -1 and 1 with equal chance, discounted by half: the return is uniform on [-2, 2]."""
    head = make_head("c51", Support(-2.5, 2.5, 201))
    probability = torch.full((201,), 1 / 201)
    for _ in range(12):
        out = probability.log()
        probability = torch.stack([head.backup(out, torch.tensor(r), torch.tensor(0.5)) for r in (-1.0, 1.0)]).mean(0)
    assert float(head.mean(probability.log())) == pytest.approx(0, abs=1e-3)
    assert float(head.variance(probability.log())) == pytest.approx(4 / 3, rel=0.01)
    assert float(head.quantile(probability.log(), 0.25)) == pytest.approx(-1, abs=0.03)


@pytest.mark.parametrize("name", ["c51", "quantile"])
def test_what_two_members_say_is_mixed_and_not_averaged(name: str) -> None:
    """One is sure of -2, the other of 1: that is a coin, and no return of -0.5."""
    head = make_head(name, SUPPORT)
    sure = torch.tensor([[-2.0], [1.0]])  # (N, 1)
    if name == "c51":
        out = head.histogram(sure).clamp(min=1e-30).log()
    else:
        out = ((sure - head.centre) / head.scale).unsqueeze(-1).expand(2, 1, head.size)
    coin = head.mixed(out)
    assert float(head.mean(coin)) == pytest.approx(-0.5, abs=1e-4)
    assert float(head.variance(coin)) == pytest.approx(1.5**2, rel=0.03)
    assert float(head.quantile(coin, 0.25)) == pytest.approx(-2.0, abs=0.1)


@pytest.mark.parametrize("name", HEADS)
def test_a_terminal_backs_up_its_reward_alone(name: str) -> None:
    head = make_head(name, SUPPORT)
    out = torch.randn(4, head.size, generator=torch.Generator().manual_seed(3))
    target = head.backup(out, torch.full((4,), 0.7), torch.zeros(4))
    mean = {
        "c51": target @ head.centres if name == "c51" else None,
        "quantile": target.mean(-1) if target.ndim > 1 else None,
    }
    torch.testing.assert_close(target if target.ndim == 1 else mean[name], torch.full((4,), 0.7), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_is_elementwise_and_least_where_the_output_is_the_target(name: str) -> None:
    head = make_head(name, SUPPORT)
    out = torch.randn(2, 5, head.size, generator=torch.Generator().manual_seed(4))
    target = head.backup(out, torch.zeros(2, 5), torch.ones(2, 5))
    loss = head.loss(out, target)
    assert loss.shape == (2, 5)
    if name in ("mse", "c51"):
        moved = out + 0.5 * torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
        assert (head.loss(moved, target) > loss).all()


def test_quantile_regression_of_a_distribution_finds_its_quantiles() -> None:
    head = make_head("quantile", Support(-3.0, 3.0, 31))
    wanted = torch.linspace(-2, 2, 31) ** 3 / 4
    out = torch.zeros(31, requires_grad=True)
    optimizer = torch.optim.Adam([out], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(out, wanted).backward()
        optimizer.step()
    torch.testing.assert_close(head.atoms(out.detach()).sort().values, wanted, rtol=0, atol=0.15)


def test_small_returns_give_quantiles_and_no_expectiles() -> None:
    """A return of 1 with a chance of 5%, else 0: a Huber threshold of 1 would blur the quantiles to expectiles."""
    support = Support(-0.1, 1.1, 40)
    returns = torch.zeros(400)
    returns[:20] = 1.0
    out = fitted("quantile", returns, support)
    assert float(make_head("quantile", support).quantile(out, 0.8)) == pytest.approx(0, abs=0.03)


def test_an_unknown_head_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown value head 'iqn'; there are: mse, two-hot, hl-gauss, c51, quantile"):
        make_head("iqn", SUPPORT)
