"""What a measurement must be before anything looks at it: named, finite, in radians; of the promised size and alive."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from vla_rl.observe.encoded import Encoded
from vla_rl.types import Array, CameraSpec, Image, RobotSpec

UNIT_MARGIN = 0.1  # of a joint's range beyond its limits; further out these are no radians
FROZEN_FRAMES = 10
MOVED = 0.05  # of a joint since the first of several equal images [rad]: the picture ought to have changed
BLACK = 8  # the brightest pixel of a black image is darker than this
ROWS = 64  # of an image that are compared with those of the one before


class JointCheck:
    """Brings joint positions into a robot's order."""

    def __init__(self, spec: RobotSpec) -> None:
        margin = UNIT_MARGIN * (spec.high - spec.low)
        self._names, self._low, self._high = spec.names, spec.low - margin, spec.high + margin

    def ordered(self, names: Sequence[str], positions: Sequence[float] | Array) -> Array:
        """Positions in the robot's order, (J,) [rad]; further joints are left out.

        Raises:
            ValueError: in one word: "names" (one is missing or there twice), "not_finite", "units" (no radians).
        """
        try:
            given = np.asarray(positions, dtype=np.float64)
        except (ValueError, TypeError):
            raise ValueError("not_finite") from None
        if given.ndim != 1 or len(names) != len(given) or len(set(names)) != len(names):
            raise ValueError("names")
        by_name = dict(zip(names, given.tolist(), strict=True))
        if not set(self._names) <= by_name.keys():
            raise ValueError("names")
        values = np.array([by_name[name] for name in self._names])
        if not np.isfinite(values).all():
            raise ValueError("not_finite")
        if (values < self._low).any() or (values > self._high).any():
            raise ValueError("units")
        return values


def largest(spec: RobotSpec, camera: str, width: int, height: int) -> CameraSpec:
    """The largest picture that a camera may send: what the robot's description says of it, and so large at least."""
    known = [each for each in spec.cameras if each.name == camera]
    return CameraSpec(camera, max([width, *(c.width for c in known)]), max([height, *(c.height for c in known)]))


def misfit(promised: CameraSpec, image: Image | Encoded) -> str:
    """Why this cannot be an image of the camera, in one word: "shape", "encoding", "too_large"; or ""."""
    try:
        if isinstance(image, Encoded):
            height, width = image.size
        elif image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            height, width = image.shape[:2]
        else:
            return "shape"
    except ValueError:
        return "encoding"
    if min(height, width) < 1:
        return "shape"
    return "too_large" if height > promised.height or width > promised.width else ""


def fingerprint(image: Image | Encoded) -> int:
    """A number that two images share only where they are alike in about ROWS of their rows."""
    if isinstance(image, Encoded):
        return zlib.crc32(image.data)
    return zlib.crc32(np.ascontiguousarray(image[:: max(1, len(image) // ROWS)]))


class Quality:
    """Whether a camera's images are worth looking at: "frozen" or "black" ones are not.

    Frozen is a picture that stays the same for more than FROZEN_FRAMES images although the arm moves: in simulation
    an arm at rest looks the same for ever.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._alike, self._black, self.frozen = 0, False, False
        self._since: Array | None = None  # joints at the first of the equal images

    def arrived(self, number: int, joints: Array | None) -> bool:
        """Note an image's fingerprint and the joints (J,) [rad] beside it; returns whether the camera is frozen."""
        if number != self._last:
            self._last, self._alike, self._since = number, 0, joints
        self._alike += 1
        moved = joints is not None and self._since is not None and np.abs(joints - self._since).max() > MOVED
        self.frozen = bool(self._alike > FROZEN_FRAMES and moved)
        return self.frozen

    def seen(self, image: Image) -> bool:
        """Note the pixels; returns whether they are black."""
        self._black = int(image.max()) < BLACK
        return self._black

    @property
    def word(self) -> str:
        """What is wrong, or ""."""
        return "black" if self._black else "frozen" if self.frozen else ""
