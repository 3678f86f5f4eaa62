"""VLAConfig: everything that decides a policy's shape and training, kept in the checkpoint's config.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig

from vla_rl.policy.diffusion import PREDICTIONS, SCHEDULERS
from vla_rl.policy.dit import HEADS
from vla_rl.types import ActionKind, ActionSpec

IMAGE = "observation.image"
IMAGES = "observation.images."
STATE = "observation.state"
ACTION = "action"


@PreTrainedConfig.register_subclass("vla_rl")
@dataclass
class VLAConfig(PreTrainedConfig):
    """A vision-language backbone, a diffusion action head, and how both are trained.

    Attributes:
        horizon: actions in a chunk, H.
        n_action_steps: actions of a chunk that `select_action` executes before it asks for the next.
        fps: control rate of data and policy [Hz]; two actions are 1 / fps apart.
        state_names: one name a state dimension; empty where unknown.
        action_feature_names: one name an action dimension; empty where unknown (LeRobot's factory fills it).
        action_spec: `ActionSpec.to_dict()` of the actions; None where unknown.
        action_mode: "relative" predicts action minus current state (gripper apart), "absolute" the action itself;
            "auto" is relative where actions are absolute joint targets of the very joints in the state.
        state_norm, action_norm: "mean_std" or "quantile" (1% and 99% become -1 and 1).
        use_state: whether the policy sees the state; relative actions need its statistics in either case.
        image_size: images are resized to this square before the backbone; None keeps them as they come.
        backbone: "tiny", or "hf:<model id or folder>" of an image-text-to-text model of transformers.
        width: size D of a context token.
        vision_channels, text_width, queries: `tiny` only: conv widths at strides 4 and 8, width of the text
            encoder, attention queries per camera (query 0 looks for the named object, query 1 for the goal).
        word_noise: `tiny` only: chance that a word is replaced by an unknown one in training.
        backbone_mode: `hf:` only: "frozen", "train" or "lora".
        backbone_layer: `hf:` only: whose hidden states become context (0 is the embedding, -1 the last).
        lora_rank, lora_targets: `hf:` with "lora": rank and names of adapted linear layers.
        head: size of the action head: tiny, S, B or L (CogACT, arXiv:2411.19650).
        train_timesteps: diffusion steps in training (squared-cosine schedule).
        prediction: what the head predicts: epsilon, sample or v_prediction.
        scheduler, inference_steps: sampler and its number of steps.
        noise_draws: noise draws per observation in training (Mini-Diffuser, arXiv:2505.09430).
        context_dropout: share of observations whose context is dropped in training, for guidance.
        advantage: whether the head is told if a chunk was better than expected (RECAP); the dropped part is then that
            word, and guidance leads from untold to better.
        guidance_scale: classifier-free guidance; 1 is off, above 1 needs `context_dropout` in training.
        init_strength: share of the noise schedule walked again when sampling starts from a chunk (`init`).
        pixel_weight, attention_weight, point_weight: weights of the auxiliary losses (labels in training only):
            pixel coordinates, attention maps and positions of the named object and the goal.
    """

    horizon: int = 16
    n_action_steps: int = 8
    fps: float = 30.0
    state_names: list[str] = field(default_factory=list)
    action_feature_names: list[str] = field(default_factory=list)
    action_spec: dict[str, Any] | None = None
    action_mode: str = "auto"
    state_norm: str = "mean_std"
    action_norm: str = "mean_std"
    use_state: bool = True
    image_size: int | None = None

    backbone: str = "tiny"
    width: int = 128
    vision_channels: list[int] = field(default_factory=lambda: [64, 96])
    text_width: int = 64
    queries: int = 8
    word_noise: float = 0.05
    backbone_mode: str = "frozen"
    backbone_layer: int = -1
    lora_rank: int = 8
    lora_targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])

    head: str = "tiny"
    train_timesteps: int = 100
    prediction: str = "sample"
    scheduler: str = "ddim"
    inference_steps: int = 10
    noise_draws: int = 4
    context_dropout: float = 0.0
    advantage: bool = False
    guidance_scale: float = 1.0
    init_strength: float = 0.5

    pixel_weight: float = 0.5
    attention_weight: float = 0.1
    point_weight: float = 0.1

    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    optimizer_lr: float = 5e-4
    optimizer_weight_decay: float = 1e-4
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 500
    scheduler_decay_steps: int = 20_000

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        super().__post_init__()
        choices = {
            "action_mode": ("auto", "relative", "absolute"),
            "state_norm": ("mean_std", "quantile"),
            "action_norm": ("mean_std", "quantile"),
            "backbone_mode": ("frozen", "train", "lora"),
            "head": tuple(HEADS),
            "prediction": PREDICTIONS,
            "scheduler": tuple(SCHEDULERS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; there are: {', '.join(allowed)}")
        if self.backbone != "tiny" and not self.backbone.startswith("hf:"):
            raise ValueError(f"unknown backbone '{self.backbone}'; there are: tiny, hf:<model id or folder>")
        if len(self.vision_channels) != 2 or min(self.vision_channels) < 1:
            raise ValueError(f"vision_channels are two widths, at strides 4 and 8, got {self.vision_channels}")
        if not 1 <= self.n_action_steps <= self.horizon:
            raise ValueError(f"n_action_steps {self.n_action_steps} must lie in 1..horizon ({self.horizon})")

    @property
    def camera_keys(self) -> dict[str, str]:
        """Camera name to its key in a batch, in the order of `input_features`; `observation.image` is "image"."""
        return {key.removeprefix(IMAGES).removeprefix("observation."): key for key in self.image_features}

    @property
    def cameras(self) -> list[str]:
        """Camera names."""
        return list(self.camera_keys)

    @property
    def state_dim(self) -> int:
        """Size of `observation.state`, 0 where there is none."""
        return self.robot_state_feature.shape[0] if self.robot_state_feature else 0

    @property
    def action_dim(self) -> int:
        """Size A of an action."""
        assert self.action_feature is not None
        return self.action_feature.shape[0]

    @property
    def spec(self) -> ActionSpec | None:
        """What an action's numbers mean, None where unknown."""
        return ActionSpec.from_dict(self.action_spec) if self.action_spec else None

    @property
    def relative(self) -> bool:
        """Whether chunks are predicted relative to the current state."""
        if self.action_mode != "auto":
            return self.action_mode == "relative"
        absolute = self.spec.kind is ActionKind.JOINT_ABSOLUTE if self.spec else _are_positions(self.action_names)
        return absolute and bool(self.state_names) and self.action_names == self.state_names

    @property
    def action_names(self) -> list[str]:
        """One name an action dimension; empty where unknown."""
        return list(self.spec.names) if self.spec else self.action_feature_names

    @property
    def relative_mask(self) -> list[bool]:
        """Per action dimension, (A,): whether it is predicted relative to the state. A gripper never is."""
        if not self.relative:
            return [False] * self.action_dim
        return ["gripper" not in name for name in self.action_names] or [True] * self.action_dim

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames of an observation, relative to now."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Frames of a chunk, relative to now: `action[t]` is the command given at t."""
        return list(range(self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return

    def get_optimizer_preset(self) -> AdamWConfig:
        """What `lerobot-train` optimises with."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=(0.9, 0.95),
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """What `lerobot-train` schedules the learning rate with."""
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr / 20,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    def validate_features(self) -> None:
        """Raise ValueError where there is no action, nothing to see, or an input that is not read."""
        if self.action_feature is None:
            raise ValueError(f"no '{ACTION}' among the output features: {sorted(self.output_features or {})}")
        if not self.image_features and not self.state_dim:
            raise ValueError(f"neither a camera nor '{STATE}' among the inputs: {sorted(self.input_features or {})}")
        if self.action_mode == "relative" and self.state_dim != self.action_dim:
            raise ValueError(
                f"relative actions need as many states as actions, not {self.state_dim} and {self.action_dim}"
            )
        for key, feature in (self.input_features or {}).items():
            if feature.type is FeatureType.VISUAL and not key.startswith(IMAGE):
                raise ValueError(f"camera '{key}' must be named {IMAGE} or {IMAGES}<name>")
            if feature.type is not FeatureType.VISUAL and key != STATE:
                raise ValueError(f"the policy reads cameras and '{STATE}', not '{key}': leave it out of the inputs")


def _are_positions(names: list[str]) -> bool:
    """Whether LeRobot's names say that these are joint positions."""
    return bool(names) and all(name.endswith(".pos") for name in names)
