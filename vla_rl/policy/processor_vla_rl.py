"""LeRobot's processors of a VLAPolicy: names, batch axis, device. Normalising is the policy's own business."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from vla_rl.policy.configuration_vla_rl import VLAConfig


def make_vla_rl_pre_post_processors(
    config: VLAConfig, dataset_stats: Any = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """LeRobot's default pipelines; the normalising steps are there, because LeRobot's tools address them by name, but do
    nothing: the config maps every feature to IDENTITY and they get no statistics.

    Args:
        config: of the policy.
        dataset_stats: ignored; the policy keeps statistics of its own.
    """
    return make_default_pre_post_processors(config, None, normalizer_device=config.device)
