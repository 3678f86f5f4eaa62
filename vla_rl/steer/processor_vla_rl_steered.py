"""LeRobot's processors of a steered policy: names, batch axis, device. The policy inside normalises for itself."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from vla_rl.steer.configuration_vla_rl_steered import SteeredConfig


def make_vla_rl_steered_pre_post_processors(
    config: SteeredConfig, dataset_stats: Any = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """LeRobot's default pipelines, whose normalising steps do nothing."""
    return make_default_pre_post_processors(config, None, normalizer_device=config.device)
