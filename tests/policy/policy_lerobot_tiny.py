"""LeRobot's own policies at random, tiny size, as `lerobot-train` leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from policy_tiny_models import save_smolvlm, smolvlm_words

from vla_rl.policy.folder import LeRobotParts

CAMERAS = ("front", "wrist")
FLOW = {"chunk_size": 8, "n_action_steps": 8, "max_state_dim": 8, "max_action_dim": 8}
PI = FLOW | {"image_resolution": (28, 28), "num_inference_steps": 3, "dtype": "float32"}
SMALL: dict[str, dict[str, Any]] = {
    "act": {
        "dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
        "chunk_size": 8, "n_action_steps": 8, "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "down_dims": (32, 64), "num_train_timesteps": 4, "horizon": 8, "n_action_steps": 6,
        "pretrained_backbone_weights": None,
    },
    "smolvla": FLOW | {
        "load_vlm_weights": False, "num_vlm_layers": 2, "resize_imgs_with_padding": (28, 28), "num_steps": 3,
    },
    "pi0": PI,
    "pi05": PI,
}  # fmt: skip


def make(kind: str, cameras=CAMERAS, size: int = 6, **changes) -> LeRobotParts:
    """A tiny policy with statistics that change nothing but for the range of the diffusion policy's actions."""
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    torch.manual_seed(0)
    inputs = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) for name in cameras}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (size,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (size,))}
    config = make_policy_config(
        kind, input_features=inputs, output_features=outputs, device="cpu", push_to_hub=False,
        **{**SMALL[kind], **changes},
    )  # fmt: skip
    policy = get_policy_class(kind)(config).eval()
    before, after = make_pre_post_processors(config, dataset_stats=statistics(inputs, size))
    return LeRobotParts(policy, before, after)


def statistics(inputs, size: int) -> dict[str, dict[str, torch.Tensor]]:
    spread = {"mean": torch.zeros(size), "std": torch.ones(size), "min": -torch.ones(size), "max": torch.ones(size)}
    spread |= {"q01": -torch.ones(size), "q99": torch.ones(size)}
    picture = {name: torch.full((3, 1, 1), float(name in ("std", "max"))) for name in ("mean", "std", "min", "max")}
    return {"observation.state": spread, "action": spread, **{key: picture for key in inputs if "images" in key}}


def lerobot_policy(folder: Path, kind: str, cameras=CAMERAS, size: int = 6, **changes) -> Path:
    """The folder of a tiny policy, with its processors."""
    parts = make(kind, cameras, size, **changes)
    parts.policy.save_pretrained(folder)
    for part in (parts.before, parts.after):
        part.save_pretrained(folder)
    return folder


def small_vision_language(monkeypatch, folder: Path) -> dict[str, dict[str, Any]]:
    """Have smolvla and pi build tiny networks, with a tokenizer that needs no download; what each kind then takes."""
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi05 import modeling_pi05
    from lerobot.processor import tokenizer_processor

    words = smolvlm_words()
    monkeypatch.setattr(tokenizer_processor.AutoTokenizer, "from_pretrained", lambda *_, **__: words)
    size = modeling_pi0.GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, num_kv_heads=1, head_dim=16)
    for module in (modeling_pi0, modeling_pi05):
        monkeypatch.setattr(module, "get_gemma_config", lambda variant: size)
        network = "PaliGemmaForConditionalGenerationWithPiGemma"
        monkeypatch.setattr(module, network, _small_eyes(getattr(module, network)))
    return {"smolvla": {"vlm_model_name": str(save_smolvlm(folder))}, "pi0": {}, "pi05": {}}


def _small_eyes(network):
    """A PaliGemma that looks through one narrow layer."""

    def build(config):
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
        for key, value in (small | {"projection_dim": config.text_config.hidden_size}).items():
            setattr(config.vision_config, key, value)
        return network(config=config)

    return build
