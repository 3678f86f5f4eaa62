"""Encoded: a file's size is known before anything is decoded."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.observe.encoded import Encoded


def encode(extension: str, height: int, width: int, quality: int = 90) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == ".jpg" else []
    return cv2.imencode(extension, image, options)[1].tobytes()


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@given(height=st.integers(1, 60), width=st.integers(1, 60), quality=st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_the_header_tells_the_size_that_decoding_gives(extension, height, width, quality):
    image = Encoded(encode(extension, height, width, quality))
    assert image.size == image.decode().shape[:2] == (height, width)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_an_error_in_words_or_a_picture_of_its_size(extension, data):
    content = bytearray(encode(extension, 8, 9))
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = Encoded(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(ValueError):
        if max(image.size) < 100:
            assert image.decode().shape[:2] == image.size


def test_a_bomb_shows_its_size_in_the_header():
    bomb = bytearray(encode(".png", 4, 4))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert Encoded(bytes(bomb)).size == (60_000, 60_000)
