"""LeRobot's processors of a VLAPolicy: names, batch axis, device. Normalising is the policy's own business."""

from __future__ import annotations

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from vla_rl.policy.configuration_vla_rl import VLAConfig


def make_vla_rl_pre_post_processors(
    config: VLAConfig, dataset_stats: Any = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """LeRobot's default pipelines, whose normalising steps do nothing.

    They are there because LeRobot's tools address them by name; the config maps every feature to IDENTITY.

    Args:
        config: of the policy.
        dataset_stats: ignored; the policy keeps statistics of its own.
    """
    return make_default_pre_post_processors(config, None, normalizer_device=config.device)
