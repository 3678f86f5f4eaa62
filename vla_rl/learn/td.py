"""What the critics' losses share: one-step targets over chunks, target networks, and weights frozen for a moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def regression(head: Head, out: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean misfit of outputs (E, B, size) to targets (B,), each row times its weight (B,)."""
    return (head.loss(out, target) * weight).mean()


def best_of_n(values: Tensor, aggregate: Aggregate) -> Tensor:
    """max_k of the aggregated values (E, B, K), (B,): the value of the policy that takes the best of its K chunks."""
    return aggregate(values).amax(-1)


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
