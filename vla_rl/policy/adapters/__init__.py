"""LeRobot's policies as Served ones: an observation is encoded once, where the policy's structure allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vla_rl.policy.adapters.lerobot import LeRobotPolicy

if TYPE_CHECKING:
    from vla_rl.policy.folder import LeRobotParts


def adapt(parts: LeRobotParts, dtype: str = "float32") -> LeRobotPolicy:
    """The adapter of a LeRobot policy's type; one for all types, that encodes anew for every chunk, where none is."""
    from vla_rl.policy.adapters.act import ActPolicy
    from vla_rl.policy.adapters.diffusion import DiffusionPolicy
    from vla_rl.policy.adapters.flow import FlowPolicy

    adapters = {"act": ActPolicy, "diffusion": DiffusionPolicy, "smolvla": FlowPolicy, "pi0": FlowPolicy}
    adapters |= {"pi05": FlowPolicy}
    adapter = adapters.get(parts.policy.config.type, LeRobotPolicy)
    # A compiled sampler is one piece: it can not be entered between encoding and denoising.
    compiled = bool(getattr(parts.policy.config, "compile_model", False)) and adapter is FlowPolicy
    return (LeRobotPolicy if compiled else adapter)(parts, dtype)
