"""A twin in a process of its own: nothing that a driver does with its own process can make the servos late."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from vla_rl.hardware.twin.control import TwinControl

STOP_S = 10.0
IMAGE_SIZE = 96  # of `vla-rl twin`


class TwinProcess:
    """`vla-rl twin`, for as long as this lives: with a leader, a control socket and the arms' calibration in a folder.

    Args:
        folder: of ports, socket and calibration; short, for a socket's path may have 107 characters.
        options: flags of `vla-rl twin`, `task="lift"` for one; True for a flag without a value.

    Attributes:
        port, leader_port: where drivers find the arms.
        calibration: folder of follower.json and leader.json, as LeRobot keeps them.
        camera_ports: camera to port.
        image_size: height and width of their pictures [pixels].

    Raises:
        RuntimeError: it does not start; the message is its own.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.port, self.leader_port, self.calibration = folder / "follower", folder / "leader", folder / "calibration"
        where = {"port": self.port, "leader": self.leader_port, "calibration": self.calibration}
        flags = {**where, "control": folder / "control", **options}
        command = [sys.executable, "-m", "vla_rl", "twin", "--until-closed", *_flags(flags)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the twin did not start (status {self._process.wait()}): {' '.join(command[2:])}")
        self.camera_ports: dict[str, int] = json.loads(line.removeprefix("twin:")).get("cameras", {})
        self.image_size = int(options.get("image_size", IMAGE_SIZE))
        self._control = TwinControl(folder / "control")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A command of the control socket, see `vla_rl.hardware.twin.control`."""
        return self._control.ask(command, **arguments)

    def status(self) -> dict[str, Any]:
        """What a driver has done to the twin, and what the task says of it."""
        return self.ask("status")

    def close(self) -> None:
        """Stop it."""
        self._control.close()
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flags(options: dict[str, Any]) -> list[str]:
    """Options as a command line."""
    flags: list[str] = []
    for name, value in options.items():
        flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return flags
