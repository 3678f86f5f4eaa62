"""Camera frames as they are kept: what arrives encoded stays as it is, what arrives raw is encoded.

Small pictures (up to 256x256, what policies look at) become PNG, so that a replay sees the very pixels that the policy
saw. PNG of a 640x480 picture takes 18 to 30 ms and three such cameras more than a core: larger ones become JPEG, 1 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_rl.observe.encoded import Encoded
from vla_rl.record import cdr

_ENDS, _TAIL = (b"\xff\xd9", b"IEND"), 4096  # of JPEG and PNG; some cameras pad behind it
KEEP = ("auto", "png", "jpeg", "raw")


@dataclass(frozen=True)
class FramesConfig:
    """How raw frames are kept.

    Attributes:
        keep: auto (PNG up to `lossless` pixels, JPEG above), png, jpeg or raw.
        lossless: [pixels].
        quality: of JPEG, 0 to 100.
    """

    keep: str = "auto"
    lossless: int = 256 * 256
    quality: int = 90

    def __post_init__(self) -> None:
        """Raise ValueError for a format that does not exist."""
        if self.keep not in KEEP:
            raise ValueError(f"frames are kept as {', '.join(KEEP)}, not '{self.keep}'")


def encoded(topic: str, data: bytes, config: FramesConfig) -> tuple[str, str, bytes]:
    """Topic, type and message under which a serialised raw Image is kept.

    Raises:
        ValueError: the message is no rgb8 or bgr8 picture.
    """
    if config.keep == "raw":
        return topic, cdr.IMAGE, data
    message = cdr.decode(data, cdr.IMAGE)
    picture = _bgr(message)
    small = message.height * message.width <= config.lossless
    png = config.keep == "png" or (config.keep == "auto" and small)
    word, file = ("png", _file(picture, ".png")) if png else ("jpeg", _file(picture, ".jpg", config.quality))
    kept = cdr.make(cdr.COMPRESSED, header=message.header, format=f"rgb8; {word} compressed bgr8", data=file)
    return topic.replace("image_raw", "compressed"), cdr.COMPRESSED, cdr.encode(kept, cdr.COMPRESSED)


def file_of(data: bytes, kind: str) -> bytes:
    """The picture's file (JPEG or PNG) in a kept frame; one that was kept raw becomes PNG.

    Raises:
        ValueError: no picture.
    """
    message = cdr.decode(data, kind)
    if kind == cdr.COMPRESSED:
        return bytes(message.data)
    return bytes(_file(_bgr(message), ".png"))


def whole(data: bytes, kind: str) -> bool:
    """Whether a kept frame is a whole picture, by its head and its end: cameras cut pictures short now and then."""
    try:
        message = cdr.decode(data, kind)
        if kind == cdr.IMAGE:
            return len(_bgr(message)) > 0
        file = bytes(message.data)
        return min(Encoded(file).size) > 0 and any(end in file[-_TAIL:] for end in _ENDS)
    except ValueError:
        return False


def lossless(data: bytes, kind: str) -> bool:
    """Whether a kept frame has the very pixels that were sent."""
    return kind == cdr.IMAGE or "png" in str(cdr.decode(data, kind).format)


def _bgr(message: Any) -> Any:
    """(H, W, 3) uint8, blue first."""
    height, width, step = message.height, message.width, message.step
    if message.encoding not in ("rgb8", "bgr8") or step < 3 * width or len(message.data) != height * step or not height:
        raise ValueError(f"an image '{message.encoding[:20]}' of {height} x {width} with {len(message.data)} bytes")
    picture = message.data.reshape(height, step)[:, : 3 * width].reshape(height, width, 3)
    return picture if message.encoding == "bgr8" else picture[..., ::-1]


def _file(picture: Any, suffix: str, quality: int = 0) -> Any:
    import cv2

    done, data = cv2.imencode(suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else [])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} can not be encoded")
    return np.asarray(data).reshape(-1)
