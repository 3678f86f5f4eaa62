"""Instructions as word hashes: no vocabulary to build or ship, and a new word is no error."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

MAX_WORDS = 64
PAD = 0


@lru_cache(maxsize=65_536)
def word_hashes(text: str) -> tuple[int, ...]:
    """Stable, positive hashes of a text's words: case and punctuation do not count; words beyond MAX_WORDS are cut."""
    return tuple(zlib.crc32(word.encode()) or 1 for word in re.findall(r"\w+", text.lower())[:MAX_WORDS])


def tokenize(texts: Sequence[str], multiple: int = MAX_WORDS) -> Tensor:
    """Word hashes of texts, (B, L) int64, padded with PAD to a multiple of `multiple`.

    The default is one length for all texts: what a policy makes of one then does not depend on the others in its
    batch, to the last bit. Training, which has all its texts at once, takes a smaller one.
    """
    hashes = [word_hashes(text) for text in texts]
    length = max(1, -(-max(map(len, hashes)) // multiple)) * multiple
    return torch.tensor([[*words, *[PAD] * (length - len(words))] for words in hashes], dtype=torch.int64)


def disturb(tokens: Tensor, chance: float, fillers: int = 4) -> Tensor:
    """Tokens (B, L) with unknown words put in (up to `fillers`) and known ones replaced by unknown ones.

    A policy that has met noise words ignores those of a phrasing it has never seen.

    Args:
        tokens: word hashes, PAD at the end of each row.
        chance: a word is replaced with this probability; up to `fillers` unknown words come with three times it each.
        fillers: most unknown words to put in.
    """
    batch, length = tokens.shape
    device = tokens.device
    unknown = torch.randint(1, 2**31, (batch, length + fillers), device=device)
    present = tokens != PAD
    replaced = torch.rand(tokens.shape, device=device) < chance
    words = torch.where(replaced & present, unknown[:, :length], tokens)
    inserted = torch.rand(batch, fillers, device=device) < 3 * chance
    extra = torch.where(inserted, unknown[:, length:], torch.full_like(unknown[:, length:], PAD))
    place = torch.where(present, torch.arange(length, device=device, dtype=torch.float32), torch.inf)
    between = torch.rand(batch, fillers, device=device) * (present.sum(1, keepdim=True) + 1) - 1
    order = torch.cat([place, torch.where(inserted, between, torch.inf)], dim=1).argsort(dim=1, stable=True)
    return torch.cat([words, extra], dim=1).gather(1, order)[:, :MAX_WORDS]
