"""How fast the cameras are, and how much MuJoCo's default quality would cost on the same scene."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

SIZES = {"fps_96": (96, 96), "fps_224": (224, 224), "fps_480": (480, 640)}


def _rate(size: tuple[int, int], seconds: float, fine: bool = False) -> float:
    """Frames a second of both cameras of `lift`, the arm moving; the pixels are checked, not only counted."""
    from vla_rl.sim.env import TabletopEnv
    from vla_rl.sim.scene import DEFAULT_QUALITY, Quality

    env = TabletopEnv("lift", image_size=size, cameras=(), quality=DEFAULT_QUALITY if fine else Quality())
    try:
        env.reset(seed=0)
        reference = {camera: env.picture(camera) for camera in ("front", "wrist")}
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or count < 4:
            last = {camera: env.picture(camera) for camera in ("front", "wrist")}
            count += 2
        for camera, picture in reference.items():
            _check(picture, last[camera], camera)
        return count / elapsed
    finally:
        env.close()


def _check(first: Any, last: Any, camera: str) -> None:
    """Raise RuntimeError where a camera drew nothing, or drew the same scene differently."""
    if np.ptp(first.reshape(-1, 3), axis=0).max() < 50 or not np.array_equal(first, last):
        raise RuntimeError(f"the {camera} camera's pixels are wrong: a frame rate of them means nothing")


def run(quick: bool = False) -> dict[str, Any]:
    """Frames a second at three sizes, and the ratio to MuJoCo's default quality at 96x96."""
    seconds = 0.3 if quick else 3.0
    metrics = {key: _rate(size, seconds) for key, size in SIZES.items()}
    default = _rate(SIZES["fps_96"], seconds, fine=True)
    metrics["speedup_vs_default_96"] = metrics["fps_96"] / default
    return {"metrics": metrics, "against": {"mujoco default quality (shadows, 4 samples)": {"fps_96": default}}}
