"""The one function that brings an image to the size a policy sees, in training and at inference alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resize(image: NDArray[np.uint8], size: int | tuple[int, int]) -> NDArray[np.uint8]:
    """Fit an image into `size` without distorting it; the rest is black, evenly on both sides.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of a square, or (height, width) [pixels].

    Returns:
        (height, width, 3) uint8; the very same array where it has that size already.

    Raises:
        ValueError: not an (H, W, 3) uint8 image, or a size below 1.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"an image size must be at least 1 pixel, got {size}")
    if image.shape[:2] == (height, width):
        return image
    import cv2

    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    # Area averaging is the only one of cv2's filters that does not alias when it shrinks.
    filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out = np.zeros((height, width, 3), np.uint8)
    out[top : top + inner[0], left : left + inner[1]] = cv2.resize(image, inner[::-1], interpolation=filtering)
    return out
