"""Reading a policy's weights: safetensors only, checked before use, every failure one line."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_BYTES = 64 * 2**30


class CheckpointError(ValueError):
    """A checkpoint cannot be used: missing, truncated, a pickle, or made for other shapes."""


def load_weights(module: nn.Module, path: Path, device: str = "cpu") -> None:
    """Load a safetensors file into a module; every weight must be there, with its shape, and finite.

    Raises:
        CheckpointError: in one line, what is wrong with the file.
    """
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in PICKLES)
        hint = f"; {', '.join(pickles)} would be a pickle, which is never read" if pickles else ""
        raise CheckpointError(f"no {path.name} in {path.parent}{hint}")
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_BYTES >> 30} GiB")
    try:
        state = load_file(path, device=device)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({str(error).splitlines()[0]})") from None
    own = module.state_dict()
    wrong = [
        f"{k} {tuple(v.shape)} here, {tuple(state[k].shape)} there"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if wrong:
        raise CheckpointError(f"{path} was made for other shapes: {_few(wrong)}")
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise CheckpointError(f"{path} does not fit: it lacks {_few(missing)}, and has besides {_few(unexpected)}")
    broken = [
        k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all() and "normalizer" not in k
    ]
    if broken:
        raise CheckpointError(f"{path} holds numbers that are not finite: {_few(broken)}")
    module.load_state_dict(state)


def _few(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "nothing"
