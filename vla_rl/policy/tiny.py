"""The `tiny` backbone: small, from scratch, made for the CPU. Words steer where it looks.

The text makes a few queries; each attends over every camera's feature map and yields what it sees and where (expected
coordinates, a spatial softmax: finer than a pixel of the map). Query 0 learns the named object, query 1 the goal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.policy.context import Features, Inputs, Looks
from vla_rl.policy.dit import attend
from vla_rl.policy.words import MAX_WORDS, PAD, disturb, tokenize

BUCKETS = 1024
FREQUENCIES = 5
PATCH = 4  # pixels on a side of a cell of the finest map


def fourier(x: Tensor) -> Tensor:
    """Features of coordinates in [-1, 1], (..., C) to (..., C (2 FREQUENCIES + 1)), float32."""
    x = x.float()
    rates = math.pi * 2.0 ** torch.arange(-1, FREQUENCIES - 1, device=x.device)
    angles = (x.unsqueeze(-1) * rates).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], dim=-1)


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """Centres of a map's cells, (height width, 2): x right, y down, the image spans -1..1."""
    y, x = ((torch.arange(n, device=device) + 0.5) * (2.0 / n) - 1 for n in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)


def patches(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), uint8 or float in [0, 1], to (B, 3 PATCH^2, H / PATCH, W / PATCH) in [-1, 1].

    Pixels are moved before they become floats, which is a quarter of the memory, and what does not fill a patch on the
    right and at the bottom is left out. The result is laid out channels last.
    """
    height, width = (n // PATCH for n in images.shape[-2:])
    cells = images[..., : height * PATCH, : width * PATCH].unflatten(-1, (width, PATCH)).unflatten(-3, (height, PATCH))
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(len(images), height, width, -1)
    scale = 2 / 255 if cells.dtype == torch.uint8 else 2.0
    return (cells.float() * scale - 1).permute(0, 3, 1, 2)


class TextBlock(nn.Module):
    """Pre-norm self-attention and MLP over words."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Words (B, L, D); mask (B, 1, 1, L), true for words."""
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.out(attend(q, k, v, mask).transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """Word hashes to Q query vectors, each of which reads the words it needs.

    A word's embedding is the sum of two rows picked by different bits of its hash, so that two words would have to
    collide twice to be the same (Bloom embeddings, arXiv:1706.03993).
    """

    def __init__(self, width: int, queries: int, layers: int = 2) -> None:
        super().__init__()
        tables = [nn.Embedding(BUCKETS, width) for _ in range(2)]
        for table in tables:
            nn.init.normal_(table.weight, std=0.5)
        self.tables = nn.ModuleList(tables)
        self.position = nn.Parameter(0.1 * torch.randn(MAX_WORDS, width))
        self.blocks = nn.ModuleList(TextBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) to (B, Q, D)."""
        words = self.tables[0](tokens % BUCKETS) + self.tables[1]((tokens // BUCKETS) % BUCKETS)
        x = words + self.position[: tokens.shape[1]]
        mask = (tokens != PAD)[:, None, None, :]
        mask = mask | ~mask.any(-1, keepdim=True)
        for block in self.blocks:
            x = block(x, mask)
        key, value = self.key_value(self.norm(x)).unsqueeze(1).chunk(2, dim=-1)
        queries = self.queries.expand(len(tokens), 1, -1, -1)
        return self.queries + self.out(attend(queries, key, value, mask).squeeze(1))


class FilmBlock(nn.Module):
    """A residual 3x3 convolution whose channels the text scales and shifts (FiLM, arXiv:1709.07871)."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(text_width, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Map (B, C, h, w), text (B, D)."""
        scale, shift = self.film(text)[:, None, None, :].chunk(2, dim=-1)
        h = torch.addcmul(shift, self.norm(x.permute(0, 2, 3, 1)), 1 + scale)
        return x + self.conv(F.relu(h).permute(0, 3, 1, 2))


class CameraEncoder(nn.Module):
    """One camera's images and the text's queries to Q tokens: what each query sees, and where.

    A strided stem keeps a map at a quarter of the resolution for localisation; half of that again sees context.

    Args:
        channels: widths at strides 4 and 8.
        text_width: width of the queries.
        queries: how many.
        width: width of a token.
    """

    def __init__(self, channels: Sequence[int], text_width: int, queries: int, width: int) -> None:
        super().__init__()
        c4, c8 = channels
        self.stem = nn.Conv2d(3 * PATCH**2, c4, 3, padding=1)
        self.down = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(FilmBlock(c8, text_width) for _ in range(2))
        self.lateral = nn.Conv2d(c4, c4, 1)
        self.up = nn.Conv2d(c8, c4, 1)
        self.merge = nn.Conv2d(c4, c4, 3, padding=1)
        self.place = nn.Linear(2 * (2 * FREQUENCIES + 1), c4)
        self.query = nn.Linear(text_width, c4)
        sees = c4 + 2 * (2 * FREQUENCIES + 1) + 2
        self.weight = nn.Parameter(torch.randn(queries, sees, width) / math.sqrt(sees))
        self.bias = nn.Parameter(torch.zeros(queries, width))
        self.out = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def feature_map(self, images: Tensor, text: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a map (B, C, H / 4, W / 4)."""
        fine = F.relu(self.stem(patches(images)))
        coarse = self.down(fine)
        for block in self.blocks:
            coarse = block(coarse, text)
        context = F.interpolate(self.up(coarse), size=fine.shape[-2:])
        return self.merge(F.relu(self.lateral(fine) + context))

    def forward(self, images: Tensor, queries: Tensor) -> tuple[Tensor, Looks]:
        """Images (B, 3, H, W) and queries (B, Q, text_width) to tokens (B, Q, width)."""
        features = self.feature_map(images, queries.mean(1))
        height, width = features.shape[-2:]
        centres = grid(height, width, images.device)
        cells, places = features.flatten(2).transpose(1, 2), self.place(fourier(centres))
        query = self.query(queries)
        logits = (query @ cells.transpose(1, 2) + query @ places.T).float() / math.sqrt(cells.shape[-1])
        attention = logits.softmax(-1)
        with torch.autocast(images.device.type, enabled=False):
            points = attention @ centres
        content = attention.to(cells.dtype) @ cells
        peak = torch.stack([attention.square().sum(-1), logits.logsumexp(-1) / 10], dim=-1)
        seen = torch.cat([content, fourier(points), peak], dim=-1)
        tokens = self.out(torch.einsum("bqf,qfd->bqd", seen, self.weight) + self.bias)
        return tokens, Looks(logits.unflatten(-1, (height, width)), points)


class TinyBackbone(nn.Module):
    """Cameras, words and state to context tokens: Q a camera and frame, one for the words, one a frame's state.

    Args:
        cameras: names.
        state_dim: size of the state, 0 where it is not used.
        frames: past frames of an observation, To.
        width: token width D.
        channels, text_width, queries: see `VLAConfig`.
        word_noise: see `VLAConfig`.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        state_dim: int,
        frames: int,
        width: int,
        *,
        channels: Sequence[int] = (64, 96),
        text_width: int = 64,
        queries: int = 8,
        word_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.word_noise = word_noise
        self.text = TextEncoder(text_width, queries)
        self.cameras = nn.ModuleDict(
            {name: CameraEncoder(channels, text_width, queries, width) for name in map(_module_name, cameras)}
        )
        self.words = nn.Linear(queries * text_width, width)
        self.state = (
            nn.Sequential(nn.Linear(state_dim, width), nn.SiLU(), nn.Linear(width, width)) if state_dim else None
        )
        self.frame = nn.Parameter(torch.zeros(frames, 1, width))
        self.norm = nn.LayerNorm(width)
        self.pooled = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, inputs: Inputs) -> Features:
        """Encode a batch of observations."""
        device = self.frame.device
        words = inputs.task_tokens if inputs.task_tokens is not None else tokenize(inputs.task).to(device)
        if self.training and self.word_noise:
            words = disturb(words, self.word_noise)
        queries = self.text(words)
        tokens, looks = [self.words(queries.flatten(1)).unsqueeze(1)], {}
        for name, frames in inputs.images.items():
            seen, looks[name] = self._look(self.cameras[_module_name(name)], frames, queries)
            tokens.append(seen)
        if self.state is not None and inputs.state is not None:
            with torch.autocast(device.type, enabled=False):
                tokens.append(self.state(inputs.state.float()) + self.frame.squeeze(1))
        merged = self.norm(torch.cat(tokens, dim=1))
        return Features(merged, self.pooled(merged.mean(1)), looks)

    def _look(self, camera: nn.Module, frames: Tensor, queries: Tensor) -> tuple[Tensor, Looks]:
        """Tokens (B, To Q, D) of one camera's frames (B, To, 3, H, W), and where it looks in the newest."""
        batch, count = frames.shape[:2]
        tokens, looks = camera(frames.flatten(0, 1), queries.repeat_interleave(count, dim=0))
        newest = Looks(*(part.unflatten(0, (batch, count))[:, -1] for part in (looks.logits, looks.points)))
        return (tokens.unflatten(0, (batch, count)) + self.frame).flatten(1, 2), newest


def _module_name(camera: str) -> str:
    """A camera's name without the dots that module names may not have."""
    return camera.replace(".", "_")
