"""The action head: a diffusion transformer (DiT, arXiv:2212.09748) over the H actions of a chunk.

Shapes: B observations, N chunks for each (noise draws in training, candidates at inference), H actions, A numbers an
action, S context tokens, D width. What depends on the observation alone is computed once for all N and all steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.policy.context import Features


@dataclass(frozen=True)
class HeadSize:
    """Depth, width and attention heads of a DiT."""

    depth: int
    width: int
    heads: int


HEADS = {
    "tiny": HeadSize(4, 128, 4),
    "S": HeadSize(6, 384, 4),
    "B": HeadSize(12, 768, 12),
    "L": HeadSize(24, 1024, 16),
}


@dataclass(frozen=True, eq=False)
class Memory:
    """What the head keeps of one batch of contexts.

    Attributes:
        keys, values: one a block, each (B, heads, S, D / heads).
        pooled: (B, D).
        mask: which tokens count, (B, 1, 1, S), or None where all do.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    pooled: Tensor
    mask: Tensor | None


def sinusoid(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of (...,) numbers: (..., dim)."""
    rates = torch.exp(torch.arange(dim // 2, device=t.device) * (-math.log(max_period) / (dim // 2)))
    angles = t.float().unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention; on the CPU in float32, whose kernel is many times faster than bfloat16's."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(q.dtype)


class Block(nn.Module):
    """Self-attention and MLP modulated by the condition (adaLN-zero), between them cross-attention to the context.

    Cross-attention has a norm of its own and starts at zero, as in PixArt (arXiv:2310.00426).
    """

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        for layer in (self.modulation, self.cross_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, heads, L, D / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def memory(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of context tokens (B, S, context_width)."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, condition: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """X (B, N, H, D), condition (B, N, D) or (1, N, D), after its activation."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).unsqueeze(-2).chunk(6, dim=-1)
        h = torch.addcmul(shift1, self.norm(x), 1 + scale1).flatten(0, 1)
        q, k, v = (self._split(part) for part in self.qkv(h).chunk(3, dim=-1))
        h = self.self_out(attend(q, k, v).transpose(1, 2).flatten(-2))
        x = torch.addcmul(x, gate1, h.view(x.shape))
        h = self._split(self.query(self.cross_norm(x)).flatten(1, 2))
        x = x + self.cross_out(attend(h, key, value, mask).transpose(1, 2).reshape(x.shape))
        h = self.mlp(torch.addcmul(shift2, self.norm(x), 1 + scale2))
        return torch.addcmul(x, gate2, h)


class DiT(nn.Module):
    """Noisy chunks and their noise levels to predictions of the same shape.

    Args:
        size: depth, width, heads.
        horizon: actions in a chunk, H.
        action_dim: numbers an action, A.
        context_width: width of context tokens and of the pooled context.
    """

    def __init__(self, size: HeadSize, horizon: int, action_dim: int, context_width: int) -> None:
        super().__init__()
        width = size.width
        self.width = width
        self.action_in = nn.Linear(action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(context_width, width)
        self.blocks = nn.ModuleList(Block(width, size.heads, context_width) for _ in range(size.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.action_out = nn.Linear(width, action_dim)
        for layer in (self.modulation, self.action_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def memory(self, features: Features) -> Memory:
        """Everything of a context that does not depend on the noisy chunks."""
        pairs = [block.memory(features.tokens) for block in cast("Sequence[Block]", self.blocks)]
        mask = None if features.mask is None else features.mask[:, None, None, :]
        return Memory(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), self.pooled(features.pooled), mask)

    def forward(self, noisy: Tensor, time: Tensor, memory: Memory) -> Tensor:
        """Predict for noisy chunks (B, N, H, A) at diffusion steps (B, N) or (1, 1): (B, N, H, A), float32."""
        x = self.action_in(noisy)
        x = x + self.position.to(x.dtype)
        condition = F.silu(self.time(sinusoid(time, self.width)) + memory.pooled.unsqueeze(1))
        for block, key, value in zip(self.blocks, memory.keys, memory.values, strict=True):
            x = block(x, condition, key, value, memory.mask)
        shift, scale = self.modulation(condition).unsqueeze(-2).chunk(2, dim=-1)
        return self.action_out(torch.addcmul(shift, self.norm(x), 1 + scale)).float()
