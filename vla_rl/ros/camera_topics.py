"""CameraTopics: a robot's pictures on `camera/<name>/...`, each with its own time, and which cameras fell silent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vla_rl.robot import Frame
from vla_rl.ros import messages, qos
from vla_rl.types import CameraSpec


class CameraTopics:
    """See the module.

    Args:
        node: who publishes.
        cameras: of the robot.
        compressed: publish `compressed` (JPEG) instead of `image_raw`.
    """

    def __init__(self, node: Any, cameras: Sequence[CameraSpec], compressed: bool) -> None:
        kind, name = (CompressedImage, "compressed") if compressed else (Image, "image_raw")
        self._cameras, self._make = cameras, messages.compressed if compressed else messages.image
        self._pictures, self._infos = {}, {}
        for camera in cameras:
            self._pictures[camera.name] = node.create_publisher(kind, f"camera/{camera.name}/{name}", qos.OFFER)
            self._infos[camera.name] = node.create_publisher(CameraInfo, f"camera/{camera.name}/camera_info", qos.OFFER)
        self._seen: dict[str, float] = {}
        self._shown: dict[str, int] = {}

    def begin(self) -> None:
        """From now on pictures are expected."""
        self._seen = {camera.name: time.monotonic() for camera in self._cameras}

    def show(self, frames: Mapping[str, Frame]) -> None:
        """Publish pictures; a camera that is not among them has nothing to say now."""
        for camera in self._cameras:
            shown = frames.get(camera.name)
            if shown is None:
                continue
            self._seen[camera.name], self._shown[camera.name] = time.monotonic(), shown.stamp_ns
            frame = f"camera_{camera.name}"
            self._pictures[camera.name].publish(self._make(shown.image, shown.stamp_ns, frame))
            self._infos[camera.name].publish(messages.camera_info(camera, shown.stamp_ns, frame))

    def fresh(self, frames: Mapping[str, Frame]) -> dict[str, Frame]:
        """Those that were not shown last."""
        return {name: frame for name, frame in frames.items() if frame.stamp_ns != self._shown.get(name)}

    def silent(self, patience_s: float) -> list[str]:
        """Cameras of which nothing was shown for longer than that [s]."""
        now = time.monotonic()
        return [name for name, seen in self._seen.items() if now - seen > patience_s]
