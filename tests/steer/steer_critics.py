"""Critics for the tests of steer/: real ones with random weights, saved and loaded as training leaves them."""

from pathlib import Path

import numpy as np
import torch

from vla_rl.robot import arm_spec
from vla_rl.value.checkpoint import save_critic, write_report
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats

NAMES = arm_spec("so101").lerobot_action_spec.names
CARD = {"policy_type": "vla_rl", "data": [], "algorithm": "monte_carlo", "steps": 1}


def save(
    folder: Path, *, report: str = "", features: int = 8, fingerprint: str = "", eyes=None, names=NAMES, **changes
) -> Path:
    """A critic's folder; features, states and chunks are standard normal (degrees) in its training data."""
    options = {"feature_dim": features, "state_dim": 6, "action_dim": 6, "window": 4, "low": 0.0, "high": 1.0}
    options |= {"width": 32, "encoder": "own" if eyes else "policy"}
    torch.manual_seed(0)
    critic = ChunkCritic(CriticConfig(**{**options, **changes}))
    random = np.random.default_rng(0)
    shapes = [(500, features), (500, critic.config.state_dim), (500, critic.config.window, critic.config.action_dim)]
    rows = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    critic.set_stats(critic_stats(*rows, None, critic.config.relative))
    save_critic(
        folder,
        critic,
        None,
        CARD | {"policy_fingerprint": fingerprint, "names": list(names[: critic.config.action_dim])},
        eyes,
    )
    if report:
        write_report(folder, {"verdict": report, "reason": "rank correlation 0.02 is below 0.3"})
    return folder
