"""What a training step changes, as plain tensors: weights, optimiser moments, target networks. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla_rl.learn.checkpoint import CheckpointError

FILE = "training_state.safetensors"


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters for AdamW: matrices decay; biases, norms and other vectors do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, other: Mapping[str, Tensor] | None = None
) -> None:
    """Write raw trainable weights, optimiser moments and `other` tensors into `folder`, by name.

    Raises:
        OSError: disk full or not writable.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in _trainable(model):
        tensors[f"weights/{name}"] = weight.detach()
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
    tensors |= {f"other/{name}": value.detach() for name, value in (other or {}).items()}
    try:
        save_file({k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, folder / FILE)
    except SafetensorError as error:
        raise OSError(f"cannot write {folder / FILE}: {error}") from error


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, other: Mapping[str, Tensor] | None = None
) -> None:
    """Put back what `save_state` wrote, into a model, an optimiser and `other` tensors made from the same config.

    Raises:
        CheckpointError: unreadable, or its parameters are not this model's.
    """
    try:
        tensors = load_file(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / FILE}: {error}") from error
    wanted = {f"weights/{name}": weight.detach() for name, weight in _trainable(model)}
    for name, weight in (wanted | {f"other/{k}": v for k, v in (other or {}).items()}).items():
        saved = tensors.get(name)
        if saved is None or saved.shape != weight.shape:
            shape = "no tensor" if saved is None else tuple(saved.shape)
            raise CheckpointError(
                f"{folder / FILE} has {shape} for {name.partition('/')[2]}, the model has {tuple(weight.shape)}"
            )
        weight.copy_(saved)
    _load_moments(tensors, model, optimizer)


def _load_moments(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser through its own `load_state_dict`, which puts each tensor on its device."""
    weights = dict(_trainable(model))
    names = {weight: name for name, weight in weights.items()}
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    moments: dict[str, dict[str, Tensor]] = {name: {} for name in order}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            slot, _, name = rest.partition("/")
            moments[name][slot] = _laid_out_as(weights[name], value)
    state = {i: moments[name] for i, name in enumerate(order) if moments[name]}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    """The value in the weight's memory format: fused AdamW walks weight and moments as they lie in memory."""
    return torch.empty_like(weight, dtype=value.dtype).copy_(value) if value.shape == weight.shape else value


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
