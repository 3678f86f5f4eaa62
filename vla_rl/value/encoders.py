"""Chunk encoders: normalised chunks (N, h, A) to their part of a critic's first layer, (E, N, W), one a member."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.value.config import CriticConfig
from vla_rl.value.layers import EnsembleLinear, EnsembleNorm

HEADS = 4  # of attention


class MlpEncoder(nn.Module):
    """The flattened chunk, linearly: with the context's part a plain MLP (Q-chunking, arXiv:2507.07969)."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.linear = EnsembleLinear(config.ensemble, config.window * config.action_dim, config.width)

    def forward(self, chunks: Tensor) -> Tensor:
        """(N, h, A) to (E, N, W)."""
        return self.linear(chunks.flatten(1))


class Block(nn.Module):
    """Pre-norm self-attention over the actions of a chunk, and an MLP."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = EnsembleNorm(members, width), EnsembleNorm(members, width)
        self.qkv = EnsembleLinear(members, width, 3 * width)
        self.out = EnsembleLinear(members, width, width)
        self.mlp = nn.Sequential(
            EnsembleLinear(members, width, 2 * width), nn.GELU(), EnsembleLinear(members, 2 * width, width)
        )

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """Tokens (E, N h, width), h = `steps` of them a chunk, to the same."""
        heads = self.qkv(self.norm1(x)).unflatten(1, (-1, steps)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)  # (E N, HEADS, h, width / HEADS)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + self.mlp(self.norm2(x))


class TransformerEncoder(nn.Module):
    """One token an action, two blocks of half the width, and the mean of the tokens."""

    def __init__(self, config: CriticConfig, blocks: int = 2) -> None:
        super().__init__()
        members, width = config.ensemble, config.width // 2
        if width % HEADS:
            raise ValueError(f"the transformer encoder needs a width that {2 * HEADS} divides, not {config.width}")
        self.action_in = EnsembleLinear(members, config.action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(members, 1, config.window, width))
        self.blocks = nn.ModuleList(Block(members, width) for _ in range(blocks))
        self.norm = EnsembleNorm(members, width)
        self.out = EnsembleLinear(members, width, config.width)

    def forward(self, chunks: Tensor) -> Tensor:
        """(N, h, A) to (E, N, W)."""
        steps = chunks.shape[1]
        tokens = self.action_in(chunks.flatten(0, 1)).unflatten(1, (-1, steps)) + self.position
        x = tokens.flatten(1, 2)
        for block in self.blocks:
            x = block(x, steps)
        return self.out(self.norm(x.unflatten(1, (-1, steps)).mean(2)))


def make_chunk_encoder(config: CriticConfig) -> nn.Module:
    """The encoder that a config names."""
    return {"mlp": MlpEncoder, "transformer": TransformerEncoder}[config.chunk_encoder](config)
