"""Pictures at the pace of cameras from one process to another, counted and timed.

python -m vla_rl.ros.measure.image_load --seconds 60     the sending side; the receiving side starts it by itself
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage, Image

from vla_rl.execute.loop import PeriodicLoop
from vla_rl.ros import dds, messages, qos
from vla_rl.ros.node import NoConfig, Node, Receipt
from vla_rl.types import Image as Picture

DRAIN_S = 1.0
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Load:
    """What is sent: `cameras` pictures of (height, width) [pixels] at `rate` [Hz] for `seconds`."""

    compressed: bool = False
    seconds: float = 60.0
    cameras: int = 3
    width: int = 640
    height: int = 480
    rate: float = 30.0

    def topic(self, camera: int) -> str:
        """Of a camera."""
        return f"camera/load{camera}/{'compressed' if self.compressed else 'image_raw'}"

    @property
    def kind(self) -> Any:
        """The message type."""
        return CompressedImage if self.compressed else Image


@dataclass
class Received:
    """What arrived: ages [s] from before encoding to after decoding, and how many per camera."""

    ages: list[float] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)


class Sink(Node):
    """Receives as the nodes do: bounded, checked, decoded."""

    kind = NoConfig

    def __init__(self, load: Load, **options: Any) -> None:
        super().__init__("image_sink", **options)
        self.received, self._load = Received(), load
        for camera in range(load.cameras):
            size = load.width * load.height * 3 + 4096
            self.subscribe(load.kind, load.topic(camera), self._take(camera), qos.FRAMES, size)

    def _take(self, camera: int) -> Any:
        def take(message: Any, receipt: Receipt) -> None:
            size = (self._load.height, self._load.width)
            if self._load.compressed:
                messages.compressed_of(message, size)
            elif messages.image_of(message).shape[:2] != size:
                raise ValueError("an image of another size")
            self.received.ages.append((time.time_ns() - messages.stamp_ns(message.header.stamp)) * 1e-9)
            self.received.counts[camera] = self.received.counts.get(camera, 0) + 1

        return take


def measure(load: Load) -> dict[str, float]:
    """Start a sender, receive in this process.

    Returns:
        sent, lost, age_p50_ms, age_p99_ms, cpu_cores (of both sides together).

    Raises:
        RuntimeError: the sender failed.
    """
    dds.use_profile()
    context = rclpy.Context()
    rclpy.init(context=context)
    sink = Sink(load, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(sink)
    flags = [f"--{name}={value}" for name, value in vars(load).items() if name != "compressed"]
    command = [sys.executable, "-m", __name__, *flags, *(["--compressed"] if load.compressed else [])]
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        before = time.process_time()
        drained = 0.0
        while not drained or time.monotonic() < drained:
            executor.spin_once(timeout_sec=0.05)
            if not drained and sender.poll() is not None:
                drained = time.monotonic() + DRAIN_S
        own = time.process_time() - before
        said = sender.communicate()[0]
    finally:
        sender.kill()
        sender.wait()
        executor.shutdown()
        sink.destroy_node()
        rclpy.try_shutdown(context=context)
    if sender.returncode:
        raise RuntimeError("the sender of pictures failed")
    return _figures(load, sink.received, json.loads(said.splitlines()[-1]), own)


def _figures(load: Load, received: Received, sent: dict[str, float], own_cpu_s: float) -> dict[str, float]:
    ages = 1e3 * np.array(received.ages or [np.nan])
    return {
        "sent": sent["sent"],
        "lost": sent["sent"] - sum(received.counts.values()),
        "age_p50_ms": float(np.percentile(ages, 50)),
        "age_p99_ms": float(np.percentile(ages, 99)),
        "cpu_cores": (own_cpu_s + sent["cpu_s"]) / load.seconds,
    }


def send(load: Load) -> dict[str, float]:
    """Send pictures once everybody listens; returns how many, and the processor time that it took [s]."""
    dds.use_profile()
    rclpy.init()
    node = rclpy.create_node("image_source")
    publishers = [node.create_publisher(load.kind, load.topic(i), qos.OFFER) for i in range(load.cameras)]
    end = time.monotonic() + _PATIENCE_S
    while not all(p.get_subscription_count() for p in publishers):
        if time.monotonic() > end:
            raise RuntimeError("nobody listens to the pictures")
        time.sleep(0.01)
    time.sleep(0.5)  # for the listener to have discovered us, too
    make = messages.compressed if load.compressed else messages.image
    scene, sent, before = _scene(load), 0, time.process_time()
    for i, _ in zip(range(round(load.seconds * load.rate)), PeriodicLoop(1 / load.rate).ticks(), strict=False):
        picture = np.roll(scene, i * 4, axis=1)
        for publisher in publishers:
            publisher.publish(make(picture, time.time_ns(), "load"))
            sent += 1
    cpu_s = time.process_time() - before
    time.sleep(DRAIN_S)
    rclpy.try_shutdown()
    return {"sent": sent, "cpu_s": cpu_s}


def _scene(load: Load) -> Picture:
    """Soft shades, edges and a little noise: about as hard to compress as a table with things on it."""
    rows, columns = np.mgrid[0 : load.height, 0 : load.width]
    boxes = 60 * (((rows // 48) + (columns // 64)) % 3)
    shades = np.stack([rows * 0.2 + boxes, columns * 0.2, 120 + 0 * rows], axis=-1)
    noise = np.random.default_rng(0).normal(0, 3, shades.shape)
    return np.clip(shades + noise, 0, 255).astype(np.uint8)


def main() -> None:
    """Command line of the sending side."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m vla_rl.ros.measure.image_load", description=description)
    parser.add_argument("--compressed", action="store_true")
    for name in ("seconds", "cameras", "width", "height", "rate"):
        default = getattr(Load, name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    print(json.dumps(send(Load(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
