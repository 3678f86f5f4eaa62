"""console: the operator's page in Chromium over the real graph: pictures a second, and a click to the mode shown."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS, CLICKS = 30.0, 100
PICTURES = ("robot.image_width=640", "robot.image_height=480")
SETTLE_S = 0.25  # between two clicks

# Notes when a button was pressed, by the input's own time stamp, and when the next mode was on the screen.
_WATCH = """() => {
    window.delays = [];
    let pressed = null;
    document.addEventListener("pointerdown", (event) => (pressed = event.timeStamp), true);
    new MutationObserver(() => requestAnimationFrame(() => {
        if (pressed !== null) window.delays.push(performance.now() - pressed);
        pressed = null;
    })).observe(document.body, { attributeFilter: ["data-mode"] });
}"""
_FRAMES = """() => Object.fromEntries(
    [...document.querySelectorAll("figure")].map((figure) => [figure.dataset.camera, +figure.dataset.frames])
)"""


def run(quick: bool = False) -> dict[str, Any]:
    """An operator who takes over and hands back by clicks, with two cameras of 640x480 at 30 Hz and the policy running.

    Returns:
        `metrics`: pictures a second on the screen, of each camera; ms from a click to the mode that it brought being on
        the screen, p50, p95 and the largest; clicks.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.options import correct_graph
    from vla_rl.ros.measure.stage import Stage

    port = free_port()
    with tempfile.TemporaryDirectory() as session, chromium() as browser:
        asked = {"session": f"{session}/session", "port": str(port)}
        stage = Stage(correct_graph(asked, PICTURES), arm_spec("so101"))
        try:
            page = browser.new_page(viewport={"width": 1024, "height": 768})
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_selector("body[data-mode='AUTONOMOUS']")
            stage.wait(3.0)
            rates = _rates(page, stage, 5.0 if quick else SECONDS)
            return {"metrics": {**rates, **_delays(page, stage, 10 if quick else CLICKS)}}
        finally:
            stage.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium without a screen, a playwright `Browser`.

    Raises:
        ValueError: there is none.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise ValueError(f"no browser; install one of {', '.join(BROWSERS)} (tools/install_system.sh does)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _rates(page: Any, stage: Any, seconds: float) -> dict[str, float]:
    before, began = page.evaluate(_FRAMES), time.monotonic()
    stage.wait(seconds)
    after, passed = page.evaluate(_FRAMES), time.monotonic() - began
    return {f"{camera}_fps": (after[camera] - before[camera]) / passed for camera in sorted(after)}


def _delays(page: Any, stage: Any, clicks: int) -> dict[str, float]:
    page.evaluate(_WATCH)
    for click in range(clicks):
        page.click("#take_over")
        page.wait_for_selector(f"body[data-mode='{'AUTONOMOUS' if click % 2 else 'CORRECTING'}']")
        stage.wait(SETTLE_S)
    delays = np.array(page.evaluate("window.delays"))
    figures = {f"click_to_mode_p{share}_ms": float(np.percentile(delays, share)) for share in (50, 95)}
    return {**figures, "click_to_mode_max_ms": float(delays.max()), "clicks": float(len(delays))}


def free_port() -> int:
    """A port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
