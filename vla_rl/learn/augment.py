"""Image augmentation that leaves the meaning alone: mild light, contrast and saturation, so that red stays red."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may differ from the camera's.

    Attributes:
        brightness: all channels times 1 +- this.
        contrast: distance from mid-grey times 1 +- this.
        saturation: distance from the pixel's own grey times 1 +- this.
        shift: whole-image shift up to this many pixels each way, edges repeated; 0 for fixed cameras (at 96x96 three
            pixels on a table are two centimetres).
    """

    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    shift: int = 0

    def __call__(self, batch: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """The batch with its images augmented; all else is passed on.

        Args:
            batch: images (B, 3, H, W) or (B, T, 3, H, W), uint8 or float in [0, 1], on the generator's device, in every
                key that starts with `observation.image`.
            generator: the only source of chance; cameras in the order of their names.

        Returns:
            Images as float32 in [0, 1], same shape; each sample drawn on its own, the frames of one sample alike.
        """
        images = sorted(k for k in batch if k.startswith("observation.image"))
        return {**batch, **{key: self.image(batch[key], generator) for key in images}}

    def image(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """One camera's images; see `__call__`."""
        frames = image if image.ndim == 5 else image.unsqueeze(1)
        batch, times, channels, height, width = frames.shape
        pixels = frames.reshape(batch * times, channels, height * width).float()
        if not image.is_floating_point():
            pixels /= 255.0
        matrix, offset = (t.repeat_interleave(times, 0) for t in self._colour(batch, generator, image.device))
        mixed = torch.baddbmm(offset, matrix, pixels).clamp_(0.0, 1.0).view(batch * times, channels, height, width)
        return self._shifted(mixed, times, generator).view(image.shape)

    def _colour(self, n: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """Brightness, contrast and saturation as one affine map of RGB: matrices (n, 3, 3), offsets (n, 3, 1)."""
        strength = torch.tensor([self.brightness, self.contrast, self.saturation], device=device)
        draw = torch.rand(n, 3, generator=generator, device=device) * 2.0 - 1.0
        bright, contrast, saturation = (1.0 + draw * strength).view(n, 3, 1, 1).unbind(1)
        grey = torch.tensor(LUMA, device=device).expand(3, 3)
        matrix = bright * contrast * (saturation * torch.eye(3, device=device) + (1.0 - saturation) * grey)
        return matrix, (bright * 0.5 * (1.0 - contrast)).expand(n, 3, 1)

    def _shifted(self, image: Tensor, times: int, generator: torch.Generator) -> Tensor:
        """Each sample moved by its own whole number of pixels, edges repeated."""
        if self.shift == 0:
            return image
        n, _, height, width = image.shape
        moves = torch.randint(
            -self.shift, self.shift + 1, (2, n // times, 1), generator=generator, device=image.device
        ).repeat_interleave(times, 1)
        rows = (torch.arange(height, device=image.device) + moves[0]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=image.device) + moves[1]).clamp_(0, width - 1)
        sample = torch.arange(n, device=image.device)[:, None, None]
        return image[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
