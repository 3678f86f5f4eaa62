"""Heads: what the last layer of a critic says about a return, how it is read and how it is fitted. Chosen by name.

Every head reads outputs (..., size) and answers (...,). Targets are returns (...,), or, where a head keeps a whole
distribution, distributions (..., size) as its `backup` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import override

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.value.support import Support

SIGMA = 0.75  # of HL-Gauss, in bin widths: about six bins receive mass (arXiv:2403.03950)


class Head(nn.Module):
    """How outputs (..., size) are read and fitted.

    Args:
        support: the range of returns.
        size: outputs per value.
    """

    def __init__(self, support: Support, size: int) -> None:
        super().__init__()
        self.support, self.size = support, size

    def mean(self, out: Tensor) -> Tensor:
        """Expected return, (...,)."""
        raise NotImplementedError

    def variance(self, out: Tensor) -> Tensor:
        """Variance of the return as the head sees it, (...,); 0 for a head that knows the mean only."""
        raise NotImplementedError

    def quantile(self, out: Tensor, tau: float) -> Tensor:
        """The return that is missed with probability tau, (...,); the mean for a head that knows no more."""
        raise NotImplementedError

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Misfit of each output (..., size) to a return (...,) or to a `backup`, elementwise (...,)."""
        raise NotImplementedError

    def backup(self, out: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The target r + discount * Z for outputs (..., size) at the next state; its mean where no more is kept."""
        return reward + discount * self.mean(out)

    def mixed(self, out: Tensor) -> Tensor:
        """Outputs (N, ..., size) to those that stand for all N in equal shares, (..., size)."""
        return out.mean(0)


class Mse(Head):
    """The mean alone, by squared error. Outputs count in half supports from its centre, so that they are of size 1."""

    def __init__(self, support: Support) -> None:
        super().__init__(support, 1)
        self.centre, self.scale = (support.low + support.high) / 2, (support.high - support.low) / 2

    @override
    def mean(self, out: Tensor) -> Tensor:
        return self.centre + self.scale * out.squeeze(-1)

    @override
    def variance(self, out: Tensor) -> Tensor:
        return torch.zeros_like(out.squeeze(-1))

    @override
    def quantile(self, out: Tensor, tau: float) -> Tensor:
        return self.mean(out)

    @override
    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        return (self.mean(out) - target).square()


class Histogram(Head):
    """Probabilities of bins (softmax), fitted by cross-entropy; subclasses say how a return becomes a histogram."""

    centres: Tensor

    def __init__(self, support: Support, low: float, width: float) -> None:
        """`low` is the lower edge of the first bin and `width` that of every bin."""
        super().__init__(support, support.bins)
        self.low, self.width = low, width
        self.register_buffer("centres", low + width * (torch.arange(support.bins) + 0.5), persistent=False)

    def histogram(self, target: Tensor) -> Tensor:
        """Returns (...,) to the probabilities (..., size) that an output should have."""
        raise NotImplementedError

    @override
    def mean(self, out: Tensor) -> Tensor:
        return (out.softmax(-1) * self.centres).sum(-1)  # no matrix product: mixed precision would round it

    @override
    def mixed(self, out: Tensor) -> Tensor:
        return out.log_softmax(-1).logsumexp(0)

    @override
    def variance(self, out: Tensor) -> Tensor:
        return (out.softmax(-1) * (self.centres - self.mean(out).unsqueeze(-1)).square()).sum(-1)

    @override
    def quantile(self, out: Tensor, tau: float) -> Tensor:
        """Inverse of the cumulated histogram, linear inside a bin."""
        probability = out.softmax(-1)
        reached = probability.cumsum(-1)
        index = (reached < tau).sum(-1, keepdim=True).clamp(max=self.size - 1)
        inside = probability.gather(-1, index)
        before = reached.gather(-1, index) - inside
        part = ((tau - before) / inside.clamp(min=1e-12)).clamp(0, 1)
        return (self.low + self.width * (index + part)).squeeze(-1)

    @override
    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        wanted = target if target.ndim == out.ndim else self.histogram(target)
        return -(wanted * out.log_softmax(-1)).sum(-1)


class TwoHot(Histogram):
    """A return is shared by the two atoms that it lies between, so that its expectation is exact (arXiv:1911.08265)."""

    def __init__(self, support: Support) -> None:
        width = (support.high - support.low) / (support.bins - 1)
        super().__init__(support, support.low - width / 2, width)

    @override
    def histogram(self, target: Tensor) -> Tensor:
        place = (target.clamp(self.support.low, self.support.high) - self.support.low) / self.width
        atoms = torch.arange(self.size, device=place.device)
        return (1 - (place.unsqueeze(-1) - atoms).abs()).clamp(min=0)


class C51(TwoHot):
    """A whole distribution over the atoms, backed up atom by atom and projected on them again (arXiv:1707.06887)."""

    @override
    def backup(self, out: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The projected distribution of r + discount * Z, (..., size)."""
        moved = reward.unsqueeze(-1) + discount.unsqueeze(-1) * self.centres
        return (out.softmax(-1).unsqueeze(-1) * self.histogram(moved)).sum(-2)


class HLGauss(Histogram):
    """A return becomes a Gaussian's mass in each bin, cut to the support (arXiv:2403.03950)."""

    edges: Tensor

    def __init__(self, support: Support) -> None:
        width = (support.high - support.low) / support.bins
        super().__init__(support, support.low, width)
        self.sigma = SIGMA * width
        self.register_buffer("edges", support.low + width * torch.arange(support.bins + 1), persistent=False)

    @override
    def histogram(self, target: Tensor) -> Tensor:
        """Differences of the normal distribution function at the edges, over the mass inside the support."""
        target = target.clamp(self.support.low, self.support.high).unsqueeze(-1)
        below = torch.erf((self.edges - target) / (math.sqrt(2) * self.sigma))
        return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])

    @override
    def variance(self, out: Tensor) -> Tensor:
        """The histogram's variance without what the Gaussian and the bins put into it."""
        return (super().variance(out) - self.sigma**2 - self.width**2 / 12).clamp(min=0)


class Quantile(Head):
    """The returns at the midpoints of N equal steps of probability, by quantile regression (arXiv:1710.10044).

    The Huber threshold is a bin's width: the papers' 1 would turn quantiles into expectiles where returns are small.
    """

    taus: Tensor

    def __init__(self, support: Support) -> None:
        super().__init__(support, support.bins)
        self.centre, self.scale = (support.low + support.high) / 2, (support.high - support.low) / 2
        self.kappa = 2 * self.scale / support.bins
        self.register_buffer("taus", (torch.arange(self.size) + 0.5) / self.size, persistent=False)

    def atoms(self, out: Tensor) -> Tensor:
        """The quantiles (..., size) in the units of returns."""
        return self.centre + self.scale * out

    @override
    def mean(self, out: Tensor) -> Tensor:
        return self.atoms(out).mean(-1)

    @override
    def mixed(self, out: Tensor) -> Tensor:
        """Quantiles of the mixture, not means of quantiles: all N x size in order, every N of them made one."""
        ordered = out.movedim(0, -1).flatten(-2).sort(-1).values
        return ordered.unflatten(-1, (self.size, -1)).mean(-1)

    @override
    def variance(self, out: Tensor) -> Tensor:
        return self.atoms(out).var(-1, correction=0)

    @override
    def quantile(self, out: Tensor, tau: float) -> Tensor:
        """Linear between the midpoints, constant beyond the outermost; crossing quantiles are put in order."""
        ordered = self.atoms(out).sort(-1).values
        place = min(max(tau * self.size - 0.5, 0.0), self.size - 1.0)
        index = min(int(place), self.size - 2)
        return torch.lerp(ordered[..., index], ordered[..., index + 1], place - index)

    @override
    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Quantile Huber loss, over all pairs where the target is a distribution."""
        targets = target if target.ndim == out.ndim else target.unsqueeze(-1)
        gap = targets.unsqueeze(-2) - self.atoms(out).unsqueeze(-1)  # (..., size, targets)
        huber = F.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=self.kappa) / self.kappa
        return ((self.taus.unsqueeze(-1) - (gap.detach() < 0).float()).abs() * huber).mean((-2, -1))

    @override
    def backup(self, out: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The quantiles of r + discount * Z, (..., size)."""
        return reward.unsqueeze(-1) + discount.unsqueeze(-1) * self.atoms(out)


HEADS: dict[str, Callable[[Support], Head]] = {
    "mse": Mse,
    "two-hot": TwoHot,
    "hl-gauss": HLGauss,
    "c51": C51,
    "quantile": Quantile,
}


def make_head(name: str, support: Support) -> Head:
    """A head by name.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in HEADS:
        raise ValueError(f"unknown value head '{name}'; there are: {', '.join(HEADS)}")
    return HEADS[name](support)
