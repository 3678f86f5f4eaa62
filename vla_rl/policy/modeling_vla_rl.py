"""VLAPolicy: backbone -> context tokens -> diffusion action head -> K chunks. A LeRobot policy of type `vla_rl`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from draccus.utils import DraccusException
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.policy import diffusion
from vla_rl.policy.auxiliary import auxiliary_losses
from vla_rl.policy.backbones import make_backbone
from vla_rl.policy.conditioning import AdvantageCondition, dropped, without_content
from vla_rl.policy.configuration_vla_rl import ACTION, STATE, VLAConfig
from vla_rl.policy.context import Context, Features, Inputs
from vla_rl.policy.diffusion import Guide, Resample
from vla_rl.policy.dit import HEADS, DiT
from vla_rl.policy.features import check_features
from vla_rl.policy.lerobot_stats import adopt_metadata, dataset_statistics
from vla_rl.policy.normalize import Normalizer
from vla_rl.policy.processor_vla_rl import make_vla_rl_pre_post_processors
from vla_rl.policy.weights import CheckpointError, load_weights

Batch = Mapping[str, Any]
BACKBONE_DIR = "backbone"


def read_config(folder: Path) -> VLAConfig:
    """The config of a policy folder.

    Raises:
        CheckpointError: there is none, it cannot be read, or it belongs to another policy type.
    """
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, DraccusException) as error:
        raise CheckpointError(f"cannot read {folder / 'config.json'}: {str(error).splitlines()[0]}") from None
    if not isinstance(config, VLAConfig):
        raise CheckpointError(f"{folder} holds a policy of type '{config.type}', not 'vla_rl'")
    return config


def draw(
    shape: tuple[int, ...], generator: torch.Generator | Sequence[torch.Generator] | None, device: torch.device
) -> Tensor:
    """Normal noise from one generator, or one for each row."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator, device=device)
    return torch.stack([torch.randn(shape[1:], generator=each, device=device) for each in generator])


class VLAPolicy(PreTrainedPolicy):
    """A vision-language policy with a diffusion action head.

    Args:
        config: shapes and choices.
        stats: statistics as `compute_stats` returns them; a policy without any can be built and loaded into, not used.
        dataset_stats: LeRobot's statistics (absolute actions), given by `lerobot-train`.
        dataset_meta: LeRobot's metadata of the training set, given by `lerobot-train`; relative actions take their
            statistics from its files.
        backbone_dir: the checkpoint's copy of an `hf:` backbone's config and processor.
    """

    config_class = VLAConfig
    name = "vla_rl"
    alphas_cumprod: Tensor

    def __init__(
        self,
        config: VLAConfig,
        stats: Mapping[str, Mapping[str, Any]] | None = None,
        dataset_stats: Mapping[str, Mapping[str, Any]] | None = None,
        dataset_meta: Any = None,
        backbone_dir: Path | None = None,
    ) -> None:
        super().__init__(config)
        config.validate_features()
        self.config: VLAConfig = config
        if stats is None and dataset_meta is not None:
            adopt_metadata(config, dataset_meta)
            stats = dataset_statistics(config, dataset_stats, dataset_meta)
        stats = stats if stats is not None else dataset_stats
        config.action_mode = "relative" if config.relative else "absolute"
        chunk = (config.horizon, config.action_dim)
        self.normalizer = Normalizer(
            config.state_dim, chunk, config.relative_mask, config.state_norm, config.action_norm
        )
        self.backbone = make_backbone(config, backbone_dir)
        self.head = DiT(HEADS[config.head], *chunk, self.backbone.width)
        self.points = nn.Sequential(nn.Linear(self.backbone.width, 64), nn.SiLU(), nn.Linear(64, 6))
        self.null_context = nn.Parameter(torch.zeros(2, self.backbone.width))
        dropout = config.context_dropout
        self.advantage = AdvantageCondition(self.backbone.width, dropout) if config.advantage else None
        self.scheduler = diffusion.make_scheduler(config.scheduler, config.train_timesteps, config.prediction)
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False)
        if stats is not None:
            self.normalizer.set_stats(stats)
        self._usable = False
        self.reset()

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_name_or_path: str | Path, *, config: VLAConfig | None = None, **kwargs: Any
    ) -> VLAPolicy:
        """Load a policy folder (`config.json`, `model.safetensors`), or one from the Hub, in evaluation mode.

        Raises:
            CheckpointError: in one line, why it cannot be used.
            MissingStatisticsError: it carries no statistics.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            if folder.is_absolute() or len(folder.parts) != 2:
                raise CheckpointError(f"no checkpoint folder {folder}")
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(str(pretrained_name_or_path), revision=kwargs.get("revision")))
        config = config or read_config(folder)
        policy = cls(config, backbone_dir=folder / BACKBONE_DIR)
        load_weights(policy, folder / "model.safetensors")
        policy._require_statistics()
        policy.to(config.device)
        return policy.eval()

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the policy folder: config, weights with statistics, LeRobot's processors, the backbone's files."""
        self._require_statistics()
        super()._save_pretrained(save_directory, state_dict)
        for processor in make_vla_rl_pre_post_processors(self.config):
            processor.save_pretrained(save_directory)
        if hasattr(self.backbone, "save_files"):
            self.backbone.save_files(save_directory / BACKBONE_DIR)

    def check_features(self, **other_side: Any) -> None:
        """Raise FeatureMismatchError where the policy does not fit the other side: `features.check_features`."""
        check_features(self.config, **other_side)

    # -- observations to context ---------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Context:
        """Run the backbone, once.

        Args:
            batch: `observation.images.<camera>` (B, 3, H, W), uint8 or float in [0, 1], and `observation.state`
                (B, S), either with a frame axis after B where `n_obs_steps` > 1, and `task`, B instructions (or
                `task_tokens`, see `words.tokenize`). One observation without the batch axis is welcome too.

        Raises:
            MissingStatisticsError: the policy has no statistics.
            ValueError: an input is missing or has another size; the message lists both sides.
        """
        self._require_statistics()
        batch, batched = self._batched(batch)
        state = batch[STATE].to(self.device).float() if self.config.state_dim else None
        frames = state if state is None or state.ndim == 3 else state.unsqueeze(1)
        inputs = Inputs(
            images={name: self._frames(batch[key]) for name, key in self.config.camera_keys.items()},
            state=self.normalizer.normalize_state(frames) if frames is not None and self.config.use_state else None,
            task=batch.get("task") or [""] * len(next(iter(batch.values()))),
            task_tokens=batch["task_tokens"].to(self.device) if "task_tokens" in batch else None,
        )
        features = self.backbone(inputs)
        newest = None if frames is None else frames[:, -1]
        return Context(features, newest, batched)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.null_context.device

    def _require_statistics(self) -> None:
        if not self._usable:
            self.normalizer.require()
            self._usable = True

    def _batched(self, batch: Batch) -> tuple[dict[str, Any], bool]:
        """The inputs this policy reads, with a batch axis, and whether they had one."""
        wanted = [*self.config.camera_keys.values(), *([STATE] if self.config.state_dim else [])]
        missing = [key for key in wanted if key not in batch]
        if missing:
            raise ValueError(f"the batch lacks {', '.join(missing)}; it has: {', '.join(sorted(batch))}")
        task = batch.get("task")
        single = isinstance(task, str) or (STATE in wanted and batch[STATE].ndim == 1 + (self.config.n_obs_steps > 1))
        names = [*wanted, *(key for key in ("task", "task_tokens") if key in batch)]
        inputs = {key: batch[key] for key in names}
        if single:
            inputs = {
                k: [v] if isinstance(v, str) else v if isinstance(v, list) else v[None] for k, v in inputs.items()
            }
        return inputs, not single

    def _frames(self, images: Tensor) -> Tensor:
        """Images (B, [To,] 3, H, W) to (B, To, 3, H, W), on the device, resized where the config says so."""
        images = images.to(self.device, non_blocking=True)
        frames = images if images.ndim == 5 else images.unsqueeze(1)
        size = self.config.image_size
        if size is None or frames.shape[-2:] == (size, size):
            return frames
        flat = frames.flatten(0, 1)
        flat = flat.float() / 255 if flat.dtype == torch.uint8 else flat
        return F.interpolate(flat, (size, size), mode="bilinear", antialias=True).unflatten(0, frames.shape[:2])

    # -- training -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, reduction: str = "mean") -> tuple[Tensor, dict[str, Tensor]]:
        """Diffusion loss over `noise_draws` draws an observation, plus the auxiliary ones that have labels.

        Args:
            batch: as for `encode`, with `action` (B, H, A); optional: `action_is_pad` (B, H), `weight` (B,),
                `advantage` (B,), `labels.points`, `labels.pixels.<camera>`.
            reduction: "mean", or "none" for one loss an observation, (B,).

        Returns:
            The loss, and its parts as detached tensors (nothing here waits for the device).
        """
        context = self.encode(batch)
        clean = self.normalizer.normalize_action(batch[ACTION].to(self.device).float(), context.state)
        each = self._diffusion_loss(context, clean, batch.get("action_is_pad"), batch.get("advantage"))
        if "weight" in batch:
            each = each * batch["weight"].to(self.device)
        weights = {
            "pixel": self.config.pixel_weight,
            "attention": self.config.attention_weight,
            "point": self.config.point_weight,
        }
        labels = {key: value.to(self.device) for key, value in batch.items() if key.startswith("labels.")}
        extra = auxiliary_losses(context.features.looks, self.points(context.pooled), labels)
        total = each + sum(weights[name] * value for name, value in extra.items())
        info = {"diffusion": each.mean(), **extra, "loss": total.mean()}
        info = {f"{k}_loss" if k != "loss" else k: v.detach() for k, v in info.items()}
        return total if reduction == "none" else total.mean(), info

    def forward(self, batch: Batch, reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """`loss`, with its parts as Python numbers (LeRobot's interface)."""
        loss, info = self.loss(batch, reduction)
        return loss, {name: value.item() for name, value in info.items()}

    def _diffusion_loss(self, context: Context, clean: Tensor, is_pad: Tensor | None, better: Tensor | None) -> Tensor:
        """Mean squared error of the prediction for every observation, (B,); padding does not count."""
        batch, draws = len(clean), self.config.noise_draws
        time = torch.randint(0, self.config.train_timesteps, (batch, draws), device=clean.device)
        clean = clean.unsqueeze(1)
        noise = torch.randn(batch, draws, *clean.shape[2:], device=clean.device)
        alpha, sigma = diffusion.levels(self.alphas_cumprod, time)
        memory = self.head.memory(self._conditioned(context.features, better))
        output = self.head(diffusion.noised(clean, noise, alpha, sigma), time, memory)
        wanted = diffusion.target(clean, noise, alpha, sigma, self.config.prediction)
        error = (output - wanted).square().mean((1, 3))
        if is_pad is None:
            return error.mean(1)
        valid = (~is_pad.to(error.device)).float()
        return (error * valid).sum(1) / valid.sum(1).clamp(min=1)

    def _conditioned(self, features: Features, better: Tensor | None = None) -> Features:
        """What the head is told: the context, whether better is asked for, and in training a share of neither."""
        if self.advantage is not None:
            return self.advantage(features, better)
        share = self.config.context_dropout
        return dropped(features, self.null_context, share) if self.training and share else features

    # -- sampling -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        context: Context,
        k: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        *,
        prefix: Tensor | None = None,
        init: Tensor | None = None,
        guide: Guide | None = None,
        tilt: Guide | None = None,
        resample: Resample | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw K chunks from one encoding, as one batch.

        Args:
            context: from `encode`.
            k: candidates an observation.
            generator: makes the draw reproducible, on the policy's device; or one for each observation, so that what
                is drawn for it does not depend on the batch it is in.
            prefix: actions already committed, (P, A) or (B, P, A), data units: every chunk begins with them.
            init: chunks to noise by `init_strength` and denoise again, (K, H, A) or (B, K, H, A), data units.
            guide: noisy chunks (B, K, H, A), data units, to the gradient of a log-likelihood with regard to them.
            tilt: clean chunks, likewise, to the gradient of a log-density that the policy's is multiplied by.
            resample: (clean chunks, data units; steps left) to which particle goes on in each of the K places.
            noise: initial noise (B, K, H, A) in place of the generator's.

        Returns:
            Chunks in the data set's units, (K, H, A) for one observation, (B, K, H, A) for a batch.
        """
        batch, config = len(context.pooled), self.config
        shape = (batch, k, config.horizon, config.action_dim)
        if noise is None:
            noise = draw(shape, generator, self.device)
        chunks = diffusion.sample(
            self._predictor(context),
            self.scheduler,
            self.alphas_cumprod,
            noise,
            prediction=config.prediction,
            steps=config.inference_steps,
            clip=self.normalizer.action.clip,
            generator=generator,
            prefix=None if prefix is None else self._normalized_prefix(prefix, context),
            init=None if init is None else self.normalizer.normalize_action(init.expand(shape).float(), context.state),
            init_strength=config.init_strength,
            guide=None if guide is None else self._normalized_guide(guide, context),
            tilt=None if tilt is None else self._normalized_guide(tilt, context),
            resample=None if resample is None else self._normalized_resample(resample, context),
        )
        chunks = self.normalizer.denormalize_action(chunks, context.state)
        if prefix is not None:
            chunks[..., : prefix.shape[-2], :] = prefix.unsqueeze(-3)
        return chunks if context.batched else chunks[0]

    def _predictor(self, context: Context) -> diffusion.Predict:
        """Noisy chunks and a diffusion step to a prediction; guided where the config says so."""
        scale = self.config.guidance_scale
        memory = self.head.memory(self._conditioned(context.features))
        if scale == 1.0:
            return lambda x, t: self.head(x, t, memory)
        bare = context.features
        null = self.head.memory(bare if self.advantage is not None else without_content(bare, self.null_context))

        def guided(x: Tensor, t: Tensor) -> Tensor:
            free = self.head(x, t, null)
            return free + scale * (self.head(x, t, memory) - free)

        return guided

    def _normalized_prefix(self, prefix: Tensor, context: Context) -> Tensor:
        """(P, A) or (B, P, A) in data units to (B, 1, P, A) in the network's."""
        steps = prefix.shape[-2]
        padding = self.config.horizon - steps
        if padding < 0:
            raise ValueError(f"a prefix of {steps} actions does not fit a chunk of {self.config.horizon}")
        full = F.pad(prefix.to(self.device).float(), (0, 0, 0, padding))
        full = full.expand(len(context.pooled), *full.shape[-2:]).unsqueeze(1)
        return self.normalizer.normalize_action(full, context.state)[..., :steps, :]

    def _normalized_guide(self, guide: Guide, context: Context) -> Guide:
        """The guide as a function of chunks in the network's units (chain rule: the gradient times the scale)."""
        return lambda x: guide(self.normalizer.denormalize_action(x, context.state)) * self.normalizer.action.scale

    def _normalized_resample(self, resample: Resample, context: Context) -> Resample:
        """The choice of particles as a function of chunks in the network's units."""
        return lambda x, left: resample(self.normalizer.denormalize_action(x, context.state), left)

    # -- LeRobot's interface --------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget queued actions and past frames: a new episode begins."""
        self._actions: deque[Tensor] = deque()
        self._frames_seen: deque[dict[str, Any]] = deque(maxlen=self.config.n_obs_steps)

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Trainable parameters; those of one dimension (biases, norms) and embeddings are not decayed."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def predict_action_chunk(self, batch: Batch, noise: Tensor | None = None, **_: Any) -> Tensor:
        """One chunk an observation, (B, H, A), in data units; `noise` is (B, H, A)."""
        context = self.encode(batch)
        chunks = self.sample(context, 1, noise=None if noise is None else noise.unsqueeze(1))
        return chunks.squeeze(-3)

    @torch.no_grad()
    def select_action(self, batch: Batch, noise: Tensor | None = None, **_: Any) -> Tensor:
        """The next action (B, A), from a chunk of which `n_action_steps` are executed before the next is drawn."""
        if self.config.n_obs_steps > 1:
            batch = self._with_past(batch)
        if not self._actions:
            chunk = self.predict_action_chunk(batch, noise)
            self._actions.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._actions.popleft()

    def _with_past(self, batch: Batch) -> dict[str, Any]:
        """The batch with the last `n_obs_steps` observations on a frame axis; the first one stands in for its past."""
        now = {key: value for key, value in batch.items() if key == STATE or key in self.config.image_features}
        self._frames_seen.append(now)
        while len(self._frames_seen) < self.config.n_obs_steps:
            self._frames_seen.appendleft(now)
        return {**batch, **{key: torch.stack([past[key] for past in self._frames_seen], dim=1) for key in now}}
