"""Recall: the pictures of the last moments, found again by when they were taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from vla_rl.observe.encoded import Encoded
from vla_rl.types import Image

SAME_NS = 1000  # ages travel as seconds


class Recall:
    """Keeps what cameras sent, to join it with what another process made of the same pictures.

    Args:
        cameras: names; pictures of others are not kept.
        keep: pictures of each.
    """

    def __init__(self, cameras: Sequence[str], keep: int = 32) -> None:
        self._kept: dict[str, deque[tuple[int, Image | Encoded]]] = {name: deque(maxlen=keep) for name in cameras}

    def put(self, camera: str, image: Image | Encoded, stamp_ns: int) -> None:
        """A picture, as pixels (H, W, 3) uint8 RGB or as a file, and its capture time, robot clock [ns]."""
        if camera in self._kept:
            self._kept[camera].append((stamp_ns, image))

    def at(self, stamp_ns: int, ages: Mapping[str, float]) -> dict[str, Image]:
        """The pictures that an observation was made of; a camera whose picture is not known, or damaged, is missing.

        Args:
            stamp_ns: of the observation [ns].
            ages: stream name to the age of its sample at that time [s].
        """
        found = {name: self._taken(name, stamp_ns - round(ages[name] * 1e9)) for name in self._kept if name in ages}
        return {name: image for name, image in found.items() if image is not None}

    def _taken(self, camera: str, stamp_ns: int) -> Image | None:
        for taken_ns, image in reversed(self._kept[camera]):
            if abs(taken_ns - stamp_ns) <= SAME_NS:
                try:
                    return image.decode() if isinstance(image, Encoded) else image
                except ValueError:
                    return None
        return None
