"""What the critics' losses share: one-step targets over chunks, target networks, and weights frozen for a moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_rl.value.heads import Head

Aggregate = Callable[[Tensor], Tensor]
"""Values (E, ...) of an ensemble to (...)."""


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """One-step target y = sum_{i<n} gamma^i r_{t+i} + gamma^n V(s_{t+n}), (B,).

    Q-chunking (arXiv:2507.07969), eq. 6: without bias, because the n actions are those of the chunk. The
    discount is 0 at a terminal, and never at a time limit.
    """
    return reward + discount * next_value


def backed_up(head: Head, out: Tensor, value: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """What a head is fitted to so that its mean becomes r + gamma^n `value`: that, (B,), or a distribution, (B, size).

    A head that keeps whole distributions (c51, quantile) backs up the ensemble's mixture. Pessimism, and the choice of
    a chunk, have moved the value away from the mixture's mean; the mixture is moved with it.

    Args:
        head: of the outputs.
        out: at the next observation, (N, B, size).
        value: what the next observation is worth, (B,).
        reward, discount: of the transition, (B,).
    """
    mixed = head.mixed(out)
    return head.backup(mixed, reward + discount * (value - head.mean(mixed)), discount)


def regression(head: Head, out: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean misfit of outputs (E, B, size) to targets (B,) or `backed_up` ones, each row times its weight (B,)."""
    targets = target.unsqueeze(0) if target.ndim == out.ndim - 1 else target
    return (head.loss(out, targets) * weight).mean()


@dataclass(frozen=True, eq=False)
class Following:
    """What a target bootstraps from.

    Attributes:
        out: outputs that say how returns are distributed from there, (N, B, size).
        value: what it is worth, after pessimism, (B,).
    """

    out: Tensor
    value: Tensor


def best_of_n(head: Head, out: Tensor, aggregate: Aggregate) -> Following:
    """The policy that takes the best of its K chunks by the aggregated values of outputs (E, B, K, size)."""
    value, best = aggregate(head.mean(out)).max(-1)
    rows = torch.arange(len(best), device=best.device)
    return Following(out[:, rows, best], value)


def target_network[M: nn.Module](module: M) -> M:
    """A copy that follows `module` by `follow` alone."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, module: nn.Module, tau: float) -> None:
    """Polyak averaging: target <- (1 - tau) target + tau weights."""
    torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in module.parameters()], tau)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within this block, what is computed sends gradients through the module, not into its weights."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
