"""Backbones by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_rl.policy.configuration_vla_rl import VLAConfig


def make_backbone(config: VLAConfig, folder: Path | None = None) -> Any:
    """The backbone that a config names: an nn.Module that is a `context.Backbone`.

    Args:
        config: of the policy.
        folder: a checkpoint's copy of an `hf:` model's config and processor, which may not exist.

    Raises:
        ValueError: no such backbone; the message lists those that exist.
    """
    state_dim = config.state_dim if config.use_state else 0
    if config.backbone == "tiny":
        from vla_rl.policy.tiny import TinyBackbone

        return TinyBackbone(
            config.cameras,
            state_dim,
            config.n_obs_steps,
            config.width,
            channels=config.vision_channels,
            text_width=config.text_width,
            queries=config.queries,
            word_noise=config.word_noise,
        )
    if config.backbone.startswith("hf:"):
        from vla_rl.policy.hf import HFBackbone

        return HFBackbone(
            config.backbone.removeprefix("hf:"),
            state_dim,
            config.width,
            layer=config.backbone_layer,
            mode=config.backbone_mode,
            lora_rank=config.lora_rank,
            lora_targets=config.lora_targets,
            device=config.device or "cpu",
            folder=folder,
        )
    raise ValueError(f"unknown backbone '{config.backbone}'; there are: tiny, hf:<model id or folder>")
