"""Steps whose loss or gradient is not finite: skipped and counted on the device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Diverged(ValueError):  # noqa: N818
    """Too many steps in a row were not finite; the message says when, on what, and where the good weights are."""


class FiniteGuard:
    """Lets the fused optimiser leave out a step on the device itself, so weights and moments never meet a NaN.

    Attributes:
        skipped: steps left out so far, scalar tensor.
        streak: bad steps in a row up to now, scalar tensor.
        longest: longest such row so far, scalar tensor.
        last_bad: number of the last bad step, -1 for none, scalar tensor.
    """

    def __init__(self, optimizer: torch.optim.AdamW, device: torch.device, skipped: int = 0, streak: int = 0) -> None:
        """Guard `optimizer`, a fused one; `skipped` and `streak` continue the counts of an earlier run."""
        self.optimizer = optimizer
        self.skipped = torch.tensor(skipped, device=device)
        self.streak = torch.tensor(streak, device=device)
        self.longest = self.streak.clone()
        self.last_bad = torch.tensor(-1, device=device)

    def check(self, step: int, *values: Tensor) -> Tensor:
        """Judge one step by its loss, gradient norm and the like: a scalar bool tensor, true where it is skipped."""
        bad = ~torch.stack([torch.isfinite(v.detach()).all() for v in values]).all()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            votes = bad.float()
            torch.distributed.all_reduce(votes)
            bad = votes > 0
        self.skipped += bad
        self.streak = (self.streak + 1) * bad
        self.longest = torch.maximum(self.longest, self.streak)
        self.last_bad = torch.where(bad, step, self.last_bad)
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # what GradScaler sets: read by fused AdamW
        return bad
