"""Where points of the robot's base frame appear in a camera's picture."""

from __future__ import annotations

import math

import numpy as np

from vla_rl.execute.chain import rotation
from vla_rl.types import Array, CameraSpec

NEAREST = 0.01  # what is closer to the camera, or behind it, has no place in the picture [m]


class Pinhole:
    """A camera that is fixed in the base frame, centred and without distortion.

    Args:
        camera: its size, field of view and optical frame.

    Raises:
        ValueError: its field of view or its place is not known.
    """

    def __init__(self, camera: CameraSpec) -> None:
        if camera.frame is None or camera.fovy <= 0:
            raise ValueError(f"camera '{camera.name}' has no frame or no field of view: points can't be drawn over it")
        self._focal = 0.5 / math.tan(math.radians(camera.fovy) / 2)  # in heights of the picture
        self._eye, self._axes = np.array(camera.frame.position), rotation(camera.frame.quaternion)

    def __call__(self, points: Array) -> Array:
        """Project points (..., 3) [m] to (..., 2).

        Right and down from the picture's centre, in heights of the picture, so that its width does not matter (the
        field of view is the vertical one); NaN behind the camera.
        """
        ahead = (np.asarray(points, np.float64) - self._eye) @ self._axes
        depth = np.where(ahead[..., 2:] > NEAREST, ahead[..., 2:], np.nan)
        return np.asarray(ahead[..., :2] / depth * self._focal)
