"""Auxiliary losses from the simulation's state: where the named object and the goal are. Training only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vla_rl.policy.context import Looks
from vla_rl.policy.tiny import grid

IN_VIEW = 1.5  # labels beyond this are out of view
DECIMETRE = 0.1


def look_losses(looks: Looks, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """How far the first two queries of a camera look from the named object and the goal.

    Args:
        looks: of one camera.
        pixels: (B, 4): x, y of the named object, x, y of the goal, in [-1, 1] where in view; NaN where unknown.

    Returns:
        Mean smooth-L1 of the expected coordinates, and mean cross-entropy of the attention maps against a Gaussian
        of half a cell around the true place; 0 where nothing is in view.
    """
    truth = pixels.reshape(len(pixels), 2, 2).float().nan_to_num(nan=2 * IN_VIEW)
    visible = (truth.abs() <= IN_VIEW).all(-1).float()
    truth = truth.clamp(-1, 1)
    distance = F.smooth_l1_loss(looks.points[:, :2], truth, beta=0.05, reduction="none").sum(-1)
    height, width = looks.logits.shape[-2:]
    cells = grid(height, width, pixels.device)
    spread = torch.tensor([width, height], device=pixels.device) / 2
    offsets = (cells - truth.unsqueeze(-2)) * spread
    wanted = (-offsets.square().sum(-1) / (2 * 0.6**2)).softmax(-1)
    surprise = -(wanted * looks.logits[:, :2].flatten(2).log_softmax(-1)).sum(-1)
    count = visible.sum().clamp(min=1)
    return (distance * visible).sum() / count, (surprise * visible).sum() / count


def auxiliary_losses(
    looks: Mapping[str, Looks], points: Tensor | None, batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The auxiliary losses that a batch has labels for.

    Args:
        looks: camera to where its queries look.
        points: predicted positions of the named object and the goal, (B, 6) [dm], None where nothing predicts them.
        batch: with `labels.pixels.<camera>` (B, 4) and `labels.points` (B, 6) [m], each optional; rows of NaN are not
            known.

    Returns:
        Any of `pixel`, `attention` (means over the cameras) and `point`.
    """
    pairs = [
        look_losses(seen, batch[f"labels.pixels.{camera}"])
        for camera, seen in looks.items()
        if f"labels.pixels.{camera}" in batch
    ]
    losses = {}
    if pairs:
        losses["pixel"] = torch.stack([pixel for pixel, _ in pairs]).mean()
        losses["attention"] = torch.stack([attention for _, attention in pairs]).mean()
    if points is not None and "labels.points" in batch:
        truth = (batch["labels.points"].flatten(1) / DECIMETRE).to(points.device).float()
        known = truth.isfinite().all(-1)
        distance = F.smooth_l1_loss(points.float(), truth.nan_to_num(), reduction="none")
        losses["point"] = (distance.mean(-1) * known).sum() / known.sum().clamp(min=1)
    return losses
