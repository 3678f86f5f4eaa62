"""Encoded: a JPEG or PNG image as it came, whose size is known before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Buffer
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vla_rl.types import Image

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_NO_SIZE = frozenset((0xC4, 0xC8, 0xCC))  # Huffman tables, extensions and arithmetic tables share the frames' range
_ALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length


@dataclass(frozen=True, eq=False)
class Encoded:
    """The bytes of an image; decoding waits until somebody wants to see it.

    Attributes:
        data: a whole JPEG or PNG file.
    """

    data: Buffer

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) [pixels], from the file's header alone.

        Raises:
            ValueError: neither a JPEG nor a PNG, or its header is damaged.
        """
        view = memoryview(self.data).cast("B")
        try:
            if bytes(view[:8]) == _PNG:
                width, height = struct.unpack_from(">II", view, 16)
                return int(height), int(width)
            if bytes(view[:3]) == _JPEG:
                return _jpeg_size(view)
        except struct.error as error:
            raise ValueError("the image's header is cut off") from error
        raise ValueError("neither a JPEG nor a PNG image")

    def decode(self) -> Image:
        """The pixels, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: the data is damaged, or other than its header says.
        """
        import cv2

        try:
            bgr = cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR_BGR)
        except cv2.error as error:
            raise ValueError(f"the image cannot be decoded: {str(error).splitlines()[-1]}") from error
        if bgr is None or bgr.shape[:2] != self.size:
            raise ValueError("the image cannot be decoded")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    """Walk a JPEG's segments to its frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while True:
        marker = view[at + 1] if at + 1 < len(view) and view[at] == 0xFF else -1
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack_from(">HH", view, at + 5)
            return int(height), int(width)
        elif marker > 0:
            at += 2 + max(2, struct.unpack_from(">H", view, at + 2)[0])
        else:
            raise ValueError("the image's header is damaged")
