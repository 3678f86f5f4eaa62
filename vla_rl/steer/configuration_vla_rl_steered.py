"""SteeredConfig: a policy, a critic and a selector, as a LeRobot policy of type `vla_rl_steered`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig

from vla_rl.policy.configuration_vla_rl import ACTION
from vla_rl.steer.choose import ChooserConfig
from vla_rl.steer.guided import GuidedConfig


@PreTrainedConfig.register_subclass("vla_rl_steered")
@dataclass
class SteeredConfig(PreTrainedConfig):
    """What is steered, and how. The folder holds the policy in `policy/` and the critic in `critic/`.

    Attributes:
        n_action_steps: actions of a chunk that `select_action` executes before it asks for the next.
        candidates: chunks drawn for each observation, K.
        selector, temperature, k, tau, aggregate, margin, novelty: see `ChooserConfig`.
        draws, spread: chunks that the policy draws itself, and the standard deviation of the perturbed others; 0 draws
            all. See `PerturbConfig`.
        guide, guide_temperature: the critic acts while chunks are drawn: `method` ("" for none) and `temperature` of
            `GuidedConfig`.
        trust_critic: follow the critic even though its report failed.
        seed: of noise and choice.
    """

    n_action_steps: int = 8
    candidates: int = 8
    selector: str = "lcb"
    temperature: float = 0.1
    k: float = 1.0
    tau: float = 0.1
    aggregate: str = "mean"
    margin: float = 0.0
    novelty: float = 0.0
    draws: int = 0
    spread: float = 0.1
    guide: str = ""
    guide_temperature: float = 0.1
    trust_critic: bool = False
    seed: int = 0
    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        super().__post_init__()
        self.chooser, self.guidance  # noqa: B018
        if self.guide and self.draws:
            raise ValueError("guide goes without draws: chunks are drawn under the critic's influence, all of them")
        if self.guidance is not None:
            self.guidance.check(self.candidates)

    @property
    def chooser(self) -> ChooserConfig:
        """How one candidate is chosen."""
        names = ("selector", "temperature", "k", "tau", "aggregate", "margin", "novelty")
        return ChooserConfig(**{name: getattr(self, name) for name in names})

    @property
    def guidance(self) -> GuidedConfig | None:
        """How the critic acts while chunks are drawn, None where it compares them only."""
        return GuidedConfig(self.guide, self.guide_temperature) if self.guide else None

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames of an observation, relative to now."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Frames of a chunk, relative to now."""
        return list(range(self.n_action_steps))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return

    def get_optimizer_preset(self) -> AdamWConfig:
        """Nothing is optimised; LeRobot asks all the same."""
        return AdamWConfig()

    def get_scheduler_preset(self) -> Any:
        """None."""
        return None

    def validate_features(self) -> None:
        """Raise ValueError where there is no action."""
        if ACTION not in (self.output_features or {}):
            raise ValueError(f"no '{ACTION}' among the output features: {sorted(self.output_features or {})}")
