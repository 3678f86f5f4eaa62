"""The pictures of docs/console.md, of a real session in a real browser: `console_pictures.py [FOLDER]`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla_rl.bench.console import chromium, free_port
from vla_rl.robot import arm_spec
from vla_rl.ros.bringup.options import correct_graph
from vla_rl.ros.measure.stage import Stage

GRAPH = (
    *("robot.image_width=320", "robot.image_height=240"),
    # leaves its share to the browser, which draws in software
    *("policy.rate=5", "policy.candidates=4", "policy.denoising_steps=3"),
)
SIZE = {"width": 1024, "height": 768}  # a tablet's
SCENES = (("lift", "success", ""), ("drawer", "success", "closed at first"), ("place", "failure", "the cube slipped"))

Take = Callable[[str], None]


def main(out: Path) -> None:
    """Play a short session, and take a picture of each view on the way; those of the last episode stay."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    port = free_port()
    with tempfile.TemporaryDirectory() as session, chromium() as browser:
        asked = {"session": f"{session}/session", "port": str(port), "policy": "weak", "critic": "tabletop"}
        stage = Stage(correct_graph(asked, GRAPH), arm_spec("so101"))
        try:
            page = browser.new_page(viewport=SIZE)
            page.goto(f"http://127.0.0.1:{port}/")

            def take(name: str) -> None:
                page.screenshot(path=out / f"{name}.jpg", type="jpeg", quality=80)

            for number, (task, outcome, note) in enumerate(SCENES):
                stage.new_episode(task, 500_000 + number)
                _correct(page, stage, take)
                page.click(f"#{outcome}")
                _look(page, stage, take, note)
            page.click("#stop")
            _become(page, "STOPPED")
            stage.wait(1.0)
            take("stopped")
        finally:
            stage.close()


def _become(page: Any, mode: str) -> None:
    page.wait_for_selector(f"body[data-mode='{mode}']")


def _correct(page: Any, stage: Stage, take: Take) -> None:
    """The policy acts, a human drives for a moment, the policy goes on."""
    _become(page, "AUTONOMOUS")
    page.click("#start")
    stage.wait(3.0)
    take("live")
    page.click("#take_over")
    _become(page, "CORRECTING")
    page.keyboard.down("KeyS")
    stage.wait(1.5)
    take("correcting")
    page.keyboard.up("KeyS")
    page.click("#take_over")
    _become(page, "AUTONOMOUS")
    stage.wait(4.0)


def _look(page: Any, stage: Stage, take: Take, note: str) -> None:
    """The other views, once the episode is there with its picture."""
    page.click("nav [data-view=session]")
    stage.wait(2.0)
    if note:
        page.fill("#noted", note)
        page.click("#note button")
        stage.wait(1.0)
    take("session")
    page.click("nav [data-view=health]")
    stage.wait(1.0)
    take("health")
    page.click("nav [data-view=live]")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/console"))
