"""Cameras: pictures of a world, one renderer for all of them, closed when done."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from contextlib import suppress
from functools import cache
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_rl.types import Array, Image

OUT_OF_VIEW = 2.0
VIEW_LIMIT = 1.5
NEAREST = 1e-6


class RenderingError(RuntimeError):
    """There is no way to draw on this machine."""


class Cameras:
    """Renders the cameras of a model at one size. Close it: a renderer that lingers spoils the next one's pixels.

    Args:
        model: the compiled scene.
        size: height and width [pixels].
        shadows: draw shadows.

    Raises:
        RenderingError: no OpenGL context can be made, in one line.
    """

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], shadows: bool = False) -> None:
        self.size = size
        model.vis.global_.offheight = max(model.vis.global_.offheight, size[0])
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, size[1])
        self._renderer = _renderer(model, size)
        self._finalizer = weakref.finalize(self, _close, self._renderer)
        self._finalizer.atexit = False
        _OPEN.add(self)
        _close_all_at_exit()
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX, mujoco.mjtRndFlag.mjRND_HAZE):
            flags[flag] = False

    def render(self, data: mujoco.MjData, camera: str) -> Image:
        """What a camera sees, (H, W, 3) uint8 RGB."""
        self._renderer.update_scene(data, camera)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._finalizer()


_OPEN: weakref.WeakSet[Cameras] = weakref.WeakSet()


@cache
def _close_all_at_exit() -> None:
    """To be called when there is a renderer: the binding ends OpenGL at exit too, and what comes later goes first."""
    atexit.register(_close_all)


def _close_all() -> None:
    for cameras in list(_OPEN):
        with suppress(Exception):  # a context that another thread has is out of reach
            cameras.close()
        with suppress(Exception):
            cameras._renderer.close()


def _close(renderer: Any) -> None:
    """Free a renderer in its own OpenGL context: in another's it would delete the textures of the same names there."""
    if renderer._gl_context is not None:
        renderer._gl_context.make_current()
    renderer.close()


def _renderer(model: mujoco.MjModel, size: tuple[int, int]) -> Any:
    """MuJoCo's renderer, or one line on why there is none."""
    try:
        if mujoco.GLContext.__module__ == "mujoco.glfw" and sys.platform == "linux" and not _display():
            # the engine would abort the process
            raise OSError("mujoco was imported before MUJOCO_GL was set, and there is no display")
        return mujoco.Renderer(model, *size, max_geom=256)
    except Exception as error:  # what it is depends on the platform's OpenGL binding
        cause = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise RenderingError(
            f"cannot render: {cause}; set MUJOCO_GL=egl, install libegl1 and libgl1-mesa-dri, or ask for no cameras"
        ) from error


def _display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Projection:
    """Where points appear in every camera, in coordinates that run from -1 to 1 left to right and top to bottom.

    Args:
        model: the compiled scene, with C cameras.
        eyes: where the cameras are, the engine's `cam_xpos`, (..., C, 3) [m]; read at every call.
        axes: how they are turned, the engine's `cam_xmat`, (..., C, 9); read at every call.
        aspect: width over height of the pictures.
    """

    def __init__(self, model: mujoco.MjModel, eyes: Array, axes: Array, aspect: float) -> None:
        half = np.tan(np.radians(model.cam_fovy) / 2)
        self._scale = np.stack([1 / (half * aspect), -1 / half], axis=-1)[:, None, :]
        self._eyes, self._axes = eyes[..., None, :], axes.reshape(*axes.shape[:-1], 3, 3)

    def __call__(self, points: Array) -> NDArray[np.float32]:
        """Project points (..., N, 3) [m], (..., C, N, 2); 2.0 where out of view or behind the camera."""
        local = (points[..., None, :, :] - self._eyes) @ self._axes
        depth = -local[..., 2:]
        pixels = local[..., :2] * (self._scale / np.maximum(depth, NEAREST))
        hidden = (np.abs(pixels) > VIEW_LIMIT).any(axis=-1) | (depth[..., 0] <= NEAREST)
        pixels[hidden] = OUT_OF_VIEW
        return pixels.astype(np.float32)
