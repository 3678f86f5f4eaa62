"""Policy folders: config.json, where torch runs, and LeRobot's policies through LeRobot's own factory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vla_rl.policy.fingerprint import fingerprint as fingerprint
from vla_rl.policy.normalize import MissingStatisticsError

OWN_TYPE = "vla_rl"
DENOISING = ("inference_steps", "num_inference_steps", "num_steps")  # fields of ours; diffusion and pi0; SmolVLA


def read_config(folder: str | Path) -> dict[str, Any]:
    """A policy folder's config.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
        return {**config, "type": str(config["type"])}
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not a policy folder: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a policy: {error}") from error


def choose_device(device: str) -> str:
    """Where torch runs; "auto" takes the GPU where there is one.

    Raises:
        ValueError: torch has no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device '{device}' here: {str(error).splitlines()[0]}") from error
    return device


@dataclass(frozen=True, eq=False)
class LeRobotParts:
    """A policy of LeRobot's, what goes before it (normalising, words to tokens) and what comes after."""

    policy: Any
    before: Any
    after: Any


def with_denoising(folder: str | Path, steps: int) -> Any:
    """A policy folder's LeRobot configuration with so many denoising steps; None for 0: the folder's own is meant.

    Raises:
        ValueError: such a policy does not denoise.
    """
    from lerobot.configs.policies import PreTrainedConfig

    if not steps:
        return None
    config = PreTrainedConfig.from_pretrained(folder)
    name = next((name for name in DENOISING if hasattr(config, name)), None)
    if name is None:
        raise ValueError(f"policy type '{config.type}' does not denoise: denoising_steps must be 0, got {steps}")
    setattr(config, name, steps)
    return config


def load_lerobot(folder: str | Path, device: str, denoising_steps: int = 0) -> LeRobotParts:
    """Load any LeRobot policy through its own factory and processors.

    Args:
        folder: of the policy.
        device: where it computes.
        denoising_steps: 0 for what its configuration says.

    Raises:
        ValueError: there is no such type of policy, or it does not denoise.
        MissingStatisticsError: a feature that is normalised has no statistics: LeRobot would pass it on as it is.
    """
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    kind, config = get_policy_class(read_config(folder)["type"]), with_denoising(folder, denoising_steps)
    policy = kind.from_pretrained(folder, config=config).to(device).eval()
    policy.config.device = device
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(
        policy.config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )
    missing = [*_without_statistics(before, policy.config.input_features)]
    missing += _without_statistics(after, policy.config.output_features)
    if missing:
        raise MissingStatisticsError(f"{folder} has no statistics for {', '.join(missing)}, which it normalises")
    return LeRobotParts(policy, before, after)


def _without_statistics(pipeline: Any, features: dict[str, Any]) -> list[str]:
    """Features that a pipeline's normalisers ought to scale, and cannot."""
    normalisers = [step for step in pipeline.steps if hasattr(step, "norm_map") and hasattr(step, "stats")]
    return [
        key
        for step in normalisers
        for key, feature in features.items()
        if getattr(step.norm_map.get(feature.type), "value", "IDENTITY") != "IDENTITY" and key not in (step.stats or {})
    ]
