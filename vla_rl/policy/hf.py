"""The `hf:` backbone: any image-text-to-text model of transformers. Hidden states of a layer become context tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla_rl.policy.context import Features, Inputs
from vla_rl.policy.hf_inputs import ROOM, Preparation


class BackboneError(ValueError):
    """An `hf:` backbone cannot be loaded or has no such layer."""


class HFBackbone(nn.Module):
    """A vision-language model of transformers behind the `context.Backbone` interface.

    Weights that training never changes are not saved with the policy: "frozen" and "lora" need the model's own folder
    (or its copy in the Hub's cache) to load again, "train" does not. Layers above the one that is read are neither run
    nor kept.

    Args:
        source: model id or folder.
        state_dim: size of the state, 0 where it is not used.
        width: width D of a context token.
        layer: whose hidden states become tokens: 0 is the embedding, -1 the last.
        mode: "frozen", "train" or "lora".
        lora_rank, lora_targets: rank and names of the linear layers that "lora" adapts.
        device: where it will run; weights are bfloat16 on CUDA.
        folder: a checkpoint's copy of the model's config and processor, used in place of `source` where it exists.

    Raises:
        BackboneError: the model cannot be loaded, in one line that names it.
    """

    def __init__(
        self,
        source: str,
        state_dim: int,
        width: int,
        *,
        layer: int = -1,
        mode: str = "frozen",
        lora_rank: int = 8,
        lora_targets: Sequence[str] = ("q_proj", "v_proj"),
        device: str = "cpu",
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.width, self.mode = width, mode
        dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
        own = folder if folder is not None and (folder / "config.json").is_file() else None
        self.processor, self.model = load_model(source, own, pretrained=own is None or mode != "train", dtype=dtype)
        config = self.model.config.get_text_config()
        if not -config.num_hidden_layers - 1 <= layer <= config.num_hidden_layers:
            raise BackboneError(f"hf:{source} has layers 0..{config.num_hidden_layers}, not {layer}")
        self.layer = layer % (config.num_hidden_layers + 1)
        last = self.layer == config.num_hidden_layers
        self.whole = not last and not _cut(self.model, self.layer)
        self.prepare = Preparation(self.processor)
        if mode != "train":
            self.model.requires_grad_(False)
        if mode == "lora":
            self._add_lora(source, lora_rank, list(lora_targets))
        self.project = nn.Sequential(nn.Linear(config.hidden_size, width), nn.LayerNorm(width))
        self.state = (
            nn.Sequential(nn.Linear(state_dim, width), nn.SiLU(), nn.Linear(width, width)) if state_dim else None
        )
        self.pooled = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.register_state_dict_post_hook(_drop_untrained)
        self.register_load_state_dict_post_hook(_forgive_untrained)
        self.train(self.training)

    def _add_lora(self, source: str, rank: int, targets: list[str]) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        try:
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), self.model)
        except ValueError as error:
            raise BackboneError(f"lora_targets do not fit hf:{source}: {str(error).splitlines()[0]}") from None

    def train(self, mode: bool = True) -> HFBackbone:
        """Training mode, but a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.mode == "frozen":
            self.model.eval()
        return self

    def untrained(self) -> set[str]:
        """State-dict keys of this module that training never changes."""
        trained = {f"model.{name}" for name, p in self.model.named_parameters() if p.requires_grad}
        return set() if self.mode == "train" else {f"model.{name}" for name in self.model.state_dict()} - trained

    def save_files(self, folder: Path) -> None:
        """Write the model's config and processor, so that a checkpoint explains itself."""
        self.model.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def forward(self, inputs: Inputs) -> Features:
        """Encode a batch of observations: one pass of the model for all cameras and frames."""
        prepared = self._prepare(inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            output = self.model(**prepared, output_hidden_states=self.whole, use_cache=False)
        hidden = output.hidden_states[self.layer] if self.whole else output.last_hidden_state
        tokens = self.project(hidden.to(self.project[0].weight.dtype))
        mask = prepared["attention_mask"].bool()
        if self.state is not None and inputs.state is not None:
            state = self.state(inputs.state.float())
            tokens = torch.cat([tokens, state], dim=1)
            mask = torch.cat([mask, mask.new_ones(state.shape[:2])], dim=1)
        share = mask.unsqueeze(-1).to(tokens.dtype)
        return Features(tokens, self.pooled((tokens * share).sum(1) / share.sum(1)), mask=mask)

    def _prepare(self, inputs: Inputs) -> dict[str, Any]:
        """Text and images as the model's own processor makes them, on the model's device."""
        if not inputs.images:
            raise BackboneError("an hf: backbone needs at least one camera")
        if len(inputs.task) == 0:
            raise BackboneError("an hf: backbone reads 'task', not 'task_tokens'")
        frames = torch.cat(list(inputs.images.values()), dim=1)
        frames = frames if frames.dtype == torch.uint8 else (frames * 255).round().to(torch.uint8)
        multiple = 8 if self.training else ROOM
        prepared = self.prepare(frames, inputs.task, multiple)
        to = self.model.device
        return {k: v.to(to, self.model.dtype if v.is_floating_point() else v.dtype) for k, v in prepared.items()}


def _cut(model: nn.Module, layer: int) -> bool:
    """Take the layers above `layer` out of a model, so that its last hidden state is that layer's, as it is.

    Returns:
        False for a decoder of an unknown build, which is left whole.
    """
    decoder = model.get_decoder()  # type: ignore[operator]
    name = next((n for n in ("norm", "final_layer_norm") if isinstance(getattr(decoder, n, None), nn.Module)), None)
    if name is None or not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        return False
    decoder.layers = decoder.layers[:layer]
    setattr(decoder, name, nn.Identity())
    return True


def load_model(source: str, own: Path | None, *, pretrained: bool, dtype: torch.dtype) -> tuple[Any, Any]:
    """Processor, and model without its language-modelling head.

    Args:
        source: model id or folder.
        own: a checkpoint's copy of config and processor, or None.
        pretrained: whether the weights come from `source`; else only the shape does, from `own`.
        dtype: of the weights.

    Raises:
        BackboneError: in one line, what cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(own or source)
        if pretrained:
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, use_safetensors=True)
        else:
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(own or source), dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        gone = Path(source).is_absolute() and not Path(source).is_dir()
        reason = "no such folder" if gone else " ".join(str(error).split())[:200]
        raise BackboneError(f"backbone 'hf:{source}' cannot be loaded, and its weights are needed: {reason}") from None
    return processor, model.base_model


def _drop_untrained(module: HFBackbone, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Leave what training never changes out of the policy's state dict."""
    for key in module.untrained():
        state.pop(prefix + key, None)


def _forgive_untrained(module: HFBackbone, keys: Any) -> None:
    """What was left out is not missing."""
    untrained = module.untrained()
    keys.missing_keys[:] = [key for key in keys.missing_keys if not any(key.endswith(name) for name in untrained)]
