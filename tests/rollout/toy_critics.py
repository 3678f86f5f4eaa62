"""A real critic with random weights for the toy policy of these tests, saved as training leaves it."""

import numpy as np
import torch

from vla_rl.policy.folder import fingerprint
from vla_rl.value.checkpoint import save_critic, write_report
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats


def save_toy_critic(folder, policy, *, own=False, report="", window=4, ensemble=2, state=2, **changes):
    torch.manual_seed(1)
    width = 32
    config = CriticConfig(
        feature_dim=width, state_dim=state, action_dim=2, window=window, low=0.0, high=1.0, width=16, ensemble=ensemble,
        encoder="own" if own else "policy", **changes,
    )  # fmt: skip
    rng, critic = np.random.default_rng(0), ChunkCritic(config)
    features, state = rng.normal(size=(500, width)).astype(np.float32), rng.normal(size=(500, state)).astype(np.float32)
    chunks = rng.normal(size=(500, window, 2)).astype(np.float32) * 0.1
    critic.set_stats(critic_stats(features, state, chunks, None, ()))
    card = {"policy_type": "vla_rl", "policy_fingerprint": fingerprint(policy), "names": ["x", "y"]}
    save_critic(folder, critic, None, {**card, "data": [], "algorithm": "iql", "steps": 1}, policy if own else None)
    if report:
        write_report(folder, {"verdict": report, "reason": "rank correlation 0.02"})
    return str(folder)
