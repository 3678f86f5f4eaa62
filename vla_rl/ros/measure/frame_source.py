"""Cameras whose frames say which they are: what a recorder has of them can be held against what was sent.

A frame's number is in its stamp and, as a bar code that survives JPEG, in its picture.

python -m vla_rl.ros.measure.frame_source --seconds 60       prints {"sent": frames of each camera, "first_ns": stamp,
                                                                      "hz": frames of each camera a second}
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import rclpy
from sensor_msgs.msg import Image

from vla_rl.execute.loop import PeriodicLoop
from vla_rl.ros import dds, messages, qos
from vla_rl.ros.realtime import favour_process
from vla_rl.types import Image as Picture

CAMERAS, RATE, WIDTH, HEIGHT = ("load0", "load1", "load2"), 30, 640, 480
PERIOD_NS = 10**9 // RATE
_BITS, _BLOCK = 20, 16  # of the bar code, and pixels of a bit
_PATIENCE_S = 60.0


def stamped(first_ns: int, number: int) -> int:
    """The stamp of a frame [ns]."""
    return first_ns + number * PERIOD_NS


def draw(scene: Picture, number: int, camera: int) -> Picture:
    """The scene, moved on, with the bar code of a frame of a camera on it."""
    picture = np.roll(scene, number * 4, axis=1)
    code = number * len(CAMERAS) + camera
    bits = np.array([255 * (code >> bit & 1) for bit in range(_BITS)], np.uint8)
    picture[:_BLOCK, : _BITS * _BLOCK] = np.repeat(bits, _BLOCK)[None, :, None]
    return picture


def read(small: Picture) -> tuple[int, int]:
    """Number and camera of a frame, from its picture as grey at an eighth of its size."""
    block = _BLOCK // 8
    bits = small[:block, : _BITS * block].reshape(block, _BITS, block).mean((0, 2)) > 127
    code = sum(1 << bit for bit in np.flatnonzero(bits).tolist())
    return divmod(code, len(CAMERAS))


def scene() -> Picture:
    """Soft shades, edges and a little noise: about as hard to compress as a table with things on it."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    boxes = 60 * (((rows // 48) + (columns // 64)) % 3)
    shades = np.stack([rows * 0.2 + boxes, columns * 0.2, 120 + 0 * rows], axis=-1)
    noise = np.random.default_rng(0).normal(0, 3, shades.shape)
    return np.clip(shades + noise, 0, 255).astype(np.uint8)


def send(seconds: float) -> dict[str, Any]:
    """Send frames once everybody listens, at a real camera's pace: it waits for no processor where that is allowed."""
    favour_process(-10)
    dds.use_profile()
    rclpy.init()
    node = rclpy.create_node("frame_source")
    publishers = [node.create_publisher(Image, f"camera/{name}/image_raw", qos.OFFER) for name in CAMERAS]
    end = time.monotonic() + _PATIENCE_S
    while not all(publisher.get_subscription_count() for publisher in publishers):
        if time.monotonic() > end:
            raise RuntimeError("nobody listens to the frames")
        time.sleep(0.01)
    time.sleep(1.0)  # for the listener to have discovered us, too
    picture, count = scene(), round(seconds * RATE)
    first_ns, began = time.time_ns(), time.monotonic()
    for number, _ in zip(range(count), PeriodicLoop(1 / RATE).ticks(), strict=False):
        for camera, publisher in enumerate(publishers):
            frame = draw(picture, number, camera)
            publisher.publish(messages.image(frame, stamped(first_ns, number), CAMERAS[camera]))
    passed = time.monotonic() - began
    time.sleep(1.0)
    rclpy.try_shutdown()
    return {"sent": count, "first_ns": first_ns, "hz": count / passed}


def main() -> None:
    """Command line of the sending side."""
    parser = argparse.ArgumentParser(prog="python -m vla_rl.ros.measure.frame_source")
    parser.add_argument("--seconds", type=float, default=60.0)
    print(json.dumps(send(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
