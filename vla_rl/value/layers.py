"""Layers of an ensemble: E networks of one shape as one batched product. Shapes are (E, N, width)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EnsembleLinear(nn.Module):
    """E affine maps, each with weights of its own, initialised as `nn.Linear` is."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(E, N, inputs), or (N, inputs) where all members read the same, to (E, N, outputs)."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), *x.shape[-2:]), self.weight)


class EnsembleNorm(nn.Module):
    """E LayerNorms."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(E, N, width) to the same."""
        return torch.addcmul(self.shift, F.layer_norm(x, x.shape[-1:]), self.scale)


def layer(members: int, inputs: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, GELU: the norm keeps values of unseen actions bounded (RLPD, arXiv:2302.02948)."""
    return nn.Sequential(EnsembleLinear(members, inputs, outputs), EnsembleNorm(members, outputs), nn.GELU())
