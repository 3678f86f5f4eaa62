"""How long a critic takes to value 1, 8 or 32 candidates of one observation, on one CPU core."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_rl.bench.policy import median_ms
from vla_rl.value.config import CHUNK_ENCODERS, CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats

FEATURES, JOINTS, HORIZON, WINDOW = 128, 6, 16, 8


def run(quick: bool = False) -> dict[str, Any]:
    """Measure critics of the default width on the `tiny` policy's features (random weights).

    Returns:
        `metrics`: p50 of scoring K candidates [ms], context included, by chunk encoder, ensemble and K, and of the
        context alone.
    """
    repeats, threads = (10, 200)[not quick], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        metrics: dict[str, float] = {}
        for encoder in CHUNK_ENCODERS:
            for ensemble in (2, 4):
                name = f"{encoder}_e{ensemble}"
                metrics |= {f"{name}_{k}": v for k, v in _score(encoder, ensemble, repeats).items()}
    finally:
        torch.set_num_threads(threads)
    return {"metrics": metrics}


def make_critic(encoder: str, ensemble: int) -> ChunkCritic:
    """A critic of the default width with random weights, for the SO-101's chunks."""
    rng = np.random.default_rng(0)
    features, state = rng.normal(size=(64, FEATURES)), rng.normal(0, 20, (64, JOINTS))
    chunks = state[:, None] + rng.normal(0, 5, (64, WINDOW, JOINTS))
    relative = (*[True] * (JOINTS - 1), False)
    critic = ChunkCritic(
        CriticConfig(FEATURES, JOINTS, JOINTS, WINDOW, -50.0, 0.0, chunk_encoder=encoder, ensemble=ensemble,
                     relative=relative)
    )  # fmt: skip
    critic.set_stats(critic_stats(features, state, chunks, None, relative))
    return critic


@torch.inference_mode()
def _score(encoder: str, ensemble: int, repeats: int) -> dict[str, float]:
    critic = make_critic(encoder, ensemble).eval()
    features, state = torch.randn(1, FEATURES), torch.randn(1, JOINTS)
    chunks = torch.randn(1, 32, HORIZON, JOINTS)

    def score(part: Tensor) -> Tensor:
        return critic.value(critic.embed(features, state), part)

    times = {"context_p50_ms": median_ms(partial(critic.embed, features, state), repeats)}
    for k in (1, 8, 32):
        times[f"k{k}_p50_ms"] = median_ms(partial(score, chunks[:, :k]), repeats)
    return times
