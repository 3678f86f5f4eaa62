"""In which number format matrix products are computed, and results as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in `dtype`, everything that needs more in float32."""
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield


def numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor as float32 array."""
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
