"""Image augmentation that leaves the meaning alone: other light, another camera's colours; but red stays red."""

from __future__ import annotations

import math
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
        tint: each channel times 1 +- this, as another white balance would.
        hue: turn about the grey axis by up to this [turns].
        gamma: exponent between e^-this and e^this: how a sensor maps light to numbers.
        noise: standard deviation of up to this, drawn anew for every pixel and channel.
        shift: whole-image shift up to this many pixels each way, edges repeated; 0 for fixed cameras (at 96x96 three
            pixels on a table are two centimetres).
    """

    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    tint: float = 0.0
    hue: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
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
        mixed = self._sensed(torch.baddbmm(offset, matrix, pixels).clamp_(0.0, 1.0), times, generator)
        return self._shifted(mixed.view(batch * times, channels, height, width), times, generator).view(image.shape)

    def _colour(self, n: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """All but gamma and noise as one affine map of RGB: matrices (n, 3, 3), offsets (n, 3, 1)."""
        strength = torch.tensor([self.brightness, self.contrast, self.saturation, *[self.tint] * 3], device=device)
        factors = 1.0 + (torch.rand(n, 6, generator=generator, device=device) * 2.0 - 1.0) * strength
        bright, contrast, saturation = factors[:, :3].view(n, 3, 1, 1).unbind(1)
        eye, grey = torch.eye(3, device=device), torch.tensor(LUMA, device=device).expand(3, 3)
        turned = _hue_turn((torch.rand(n, generator=generator, device=device) * 2.0 - 1.0) * self.hue)
        matrix = bright * contrast * factors[:, 3:, None] * ((saturation * eye + (1.0 - saturation) * grey) @ turned)
        return matrix, (bright * 0.5 * (1.0 - contrast)).expand(n, 3, 1)

    def _sensed(self, pixels: Tensor, times: int, generator: torch.Generator) -> Tensor:
        """Pixels (n, 3, P) in [0, 1] as a sensor with its own gamma and noise gives them."""
        n, device = len(pixels) // times, pixels.device
        if self.gamma:
            draw = (torch.rand(n, 1, 1, generator=generator, device=device) * 2.0 - 1.0) * self.gamma
            pixels = pixels.pow(draw.exp().repeat_interleave(times, 0))
        if self.noise:
            level = (torch.rand(n, 1, 1, generator=generator, device=device) * self.noise).repeat_interleave(times, 0)
            grain = torch.randn(pixels.shape, generator=generator, device=device)
            pixels = (pixels + level * grain).clamp_(0.0, 1.0)
        return pixels

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


def _hue_turn(turns: Tensor) -> Tensor:
    """Rotations of RGB about its grey axis, (n,) [turns] to (n, 3, 3) (Rodrigues' formula)."""
    angle = (2 * math.pi * turns).view(-1, 1, 1)
    eye, mean = torch.eye(3, device=turns.device), torch.full((3, 3), 1 / 3, device=turns.device)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=turns.device) / math.sqrt(3)
    return angle.cos() * (eye - mean) + mean + angle.sin() * cross
