"""How long the policy takes: one encoding, and 1, 8 or 32 chunks from it, on this machine's CPU (untrained weights)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature

from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.modeling_vla_rl import VLAPolicy
from vla_rl.policy.normalize import compute_stats
from vla_rl.robot import arm_spec

SIZE = 96
CAMERAS = ("front", "wrist")


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the default policy (`tiny`, two 96x96 cameras, DDIM with 10 steps).

    Returns:
        `metrics`: p50 of encoding and sampling [ms], and one call with K = 8 over eight calls that encode and sample.
    """
    policy, batch = default_policy()
    repeats = 5 if quick else 50
    context = policy.encode(batch)
    with torch.inference_mode():
        encode = median_ms(partial(policy.encode, batch), repeats)
        sample = {k: median_ms(partial(policy.sample, context, k), repeats) for k in (1, 8, 32)}
    return {
        "metrics": {
            "encode_p50_ms": encode,
            **{f"sample_k{k}_p50_ms": value for k, value in sample.items()},
            "k8_shared_over_separate": (encode + sample[8]) / (8 * (encode + sample[1])),
            "parameters": sum(p.numel() for p in policy.parameters()),
        }
    }


def default_policy() -> tuple[VLAPolicy, dict[str, Any]]:
    """The default policy for the SO-101 with random weights, and one observation."""
    spec = arm_spec("so101").lerobot_action_spec
    config = VLAConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (spec.dim,)),
            **{f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for c in CAMERAS},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (spec.dim,))},
        device="cpu",
        action_spec=spec.to_dict(),
        state_names=list(spec.names),
    )
    rng = np.random.default_rng(0)
    state = rng.normal(0, 20, (64, spec.dim))
    actions = state[:, None] + rng.normal(0, 5, (64, config.horizon, spec.dim))
    policy = VLAPolicy(config, stats=compute_stats(state, actions, None, config.relative_mask)).eval()
    batch: dict[str, Any] = {
        f"observation.images.{c}": torch.from_numpy(rng.integers(0, 256, (1, 3, SIZE, SIZE), np.uint8)) for c in CAMERAS
    }
    return policy, batch | {"observation.state": torch.zeros(1, spec.dim), "task": ["lift the red cube"]}


def median_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median duration of a call [ms], after two to warm up."""
    durations = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations[2:]) * 1e3)
