"""Small policies and batches for the tests of policy/."""

from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature

from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats
from vla_rl.robot import arm_spec

SPEC = arm_spec("so101").lerobot_action_spec


def small_config(cameras: tuple[str, ...] = ("front", "wrist"), state: bool = True, **changes: Any) -> VLAConfig:
    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for c in cameras}
    if state:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (6,))
    defaults: dict[str, Any] = {
        "device": "cpu", "horizon": 8, "n_action_steps": 4, "inference_steps": 3, "noise_draws": 2,
        "action_spec": SPEC.to_dict(), "state_names": list(SPEC.names) if state else [],
        "width": 32, "vision_channels": [16, 16], "text_width": 16, "queries": 4,
    }  # fmt: skip
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (6,))}
    return VLAConfig(input_features=inputs, output_features=outputs, **defaults | changes)


def small_batch(config: VLAConfig, size: int = 4, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    frames = (config.n_obs_steps,) if config.n_obs_steps > 1 else ()
    state = torch.randn(size, *frames, 6) * 20
    now = state[:, -1] if frames else state
    batch: dict[str, Any] = {
        key: torch.randint(0, 256, (size, *frames, 3, 32, 32), dtype=torch.uint8) for key in config.image_features
    }
    if config.state_dim:
        batch["observation.state"] = state
    steps = torch.randn(size, config.horizon, 6).cumsum(1)
    words = ["lift the red cube", "push the blue cube"]
    return batch | {
        "action": now[:, None] + steps,
        "action_is_pad": torch.zeros(size, config.horizon, dtype=torch.bool),
        "task": [words[i % 2] for i in range(size)],
    }


def small_policy(seed: int = 0, **changes: Any) -> VLAPolicy:
    """A policy with statistics and a head that does not start at zero."""
    config = small_config(**changes)
    batch = small_batch(config, 64)
    state = batch.get("observation.state")
    now = None if state is None else (state[:, -1] if state.ndim == 3 else state).numpy()
    torch.manual_seed(seed)
    policy = VLAPolicy(config, stats=compute_stats(now, batch["action"].numpy(), None, config.relative_mask))
    for parameter in policy.parameters():
        if parameter.requires_grad and parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return policy.eval()
