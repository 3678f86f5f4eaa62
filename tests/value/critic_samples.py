"""Small critics with random weights and statistics, and random observations for them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats
from vla_rl.value.state_value import StateValue

D, S, A, WINDOW, HORIZON = 5, 3, 3, 4, 6
CARD = {
    "policy_type": "vla_rl",
    "policy_fingerprint": "a" * 64,
    "names": ["x.pos", "y.pos", "gripper.pos"],
    "data": ["d" * 64],
    "algorithm": "iql",
    "steps": 10,
}


def small_config(**changes: Any) -> CriticConfig:
    config = CriticConfig(D, S, A, WINDOW, -10.0, 2.0, bins=21, ensemble=3, width=16, relative=(True, True, False))
    return replace(config, **changes)


def small_stats(rng: np.random.Generator) -> Any:
    features, state = rng.normal(3, 2, (200, D)), rng.normal(-20, 9, (200, S))
    return critic_stats(features, state, rng.normal(-20, 9, (200, WINDOW, A)), None, (True, True, False))


def small_critic(seed: int = 0, **changes: Any) -> ChunkCritic:
    torch.manual_seed(seed)
    critic = ChunkCritic(small_config(**changes))
    critic.set_stats(small_stats(np.random.default_rng(seed)))
    return critic.eval()


def small_value(seed: int = 0, **changes: Any) -> StateValue:
    torch.manual_seed(seed)
    value = StateValue(small_config().value(**changes))
    value.set_stats(small_stats(np.random.default_rng(seed)))
    return value.eval()


def seen(batch: int, k: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (B, D), state (B, S) and chunks (B, K, HORIZON, A)."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(shape, generator=generator) for shape in ((batch, D), (batch, S), (batch, k, HORIZON, A))]
    return 3 + 2 * draw[0], -20 + 9 * draw[1], -20 + 9 * draw[2]
