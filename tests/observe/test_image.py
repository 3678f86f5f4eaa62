"""resize: the one function between a camera and a policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.observe.image import resize

side = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(height=side, width=side, out_height=side, out_width=side)
def test_the_result_has_the_size_asked_for(height: int, width: int, out_height: int, out_width: int) -> None:
    out = resize(np.full((height, width, 3), 255, np.uint8), (out_height, out_width))
    assert out.shape == (out_height, out_width, 3)
    assert out.dtype == np.uint8
    assert out.max() == 255


@settings(max_examples=60, deadline=None)
@given(height=st.integers(8, 60), width=st.integers(8, 60), size=st.integers(8, 60))
def test_the_picture_keeps_its_shape_and_the_rest_is_black(height: int, width: int, size: int) -> None:
    out = resize(np.full((height, width, 3), 255, np.uint8), size)
    rows, columns = (out.max(axis=(1, 2)) > 0).sum(), (out.max(axis=(0, 2)) > 0).sum()
    scale = size / max(height, width)
    assert abs(rows - height * scale) <= 1
    assert abs(columns - width * scale) <= 1
    assert set(np.unique(out)) <= {0, 255}


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert resize(image, 96) is image


def test_shrinking_averages_instead_of_skipping() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.abs(resize(board, 32).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_not_an_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize(image, 8)


def test_a_size_below_one_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        resize(np.zeros((4, 4, 3), np.uint8), 0)
