"""Serial ports: which there are, and why one cannot be used, in one line."""

from __future__ import annotations

import glob
import grp
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

REPLY_S = 0.015  # an answer comes within 2 ms; a period is 33
PATTERNS = ("/dev/serial/by-id/*", "/dev/ttyACM*", "/dev/ttyUSB*", "/dev/tty.usbmodem*")


def ports() -> list[str]:
    """The ports on which an arm may be, each once: under its lasting name where it has one."""
    found: dict[str, str] = {}
    for path in sorted(p for pattern in PATTERNS for p in glob.glob(pattern)):
        found.setdefault(os.path.realpath(path), path)
    return sorted(found.values(), key=lambda p: (not p.startswith("/dev/serial"), p))


def check_port(path: str) -> str:
    """The port, if it can be used.

    Raises:
        ValueError: none is given, it does not exist, is no serial port, or may not be opened; the line says what to do.
    """
    if not path:
        raise ValueError(f"no port is given; {_there()}")
    if not Path(path).exists():
        raise ValueError(f"port {path} does not exist: is the arm plugged in and powered? {_there()}")
    status = os.stat(path)
    if not stat.S_ISCHR(status.st_mode):
        raise ValueError(f"port {path} is no serial port; {_there()}")
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(status.st_gid)
        raise ValueError(
            f"permission denied on port {path}: it belongs to the group {group}; "
            f"run: sudo usermod -aG {group} $USER, and log in again"
        )
    return path


def lacks_port(what: str, kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether LeRobot's configuration of a robot or teleoperator needs a port that the settings leave out.

    Args:
        what: "robot" or "teleoperator".
        kind: LeRobot's name of it.
        settings: fields of its configuration class.
    """
    from lerobot import robots, teleoperators

    from vla_rl.hardware.lerobot_driver import robot_config, teleoperator_config

    if settings.get("port"):
        return False
    robot = what == "robot"
    with suppress(ValueError):  # it is asked for what makes it known
        (robot_config if robot else teleoperator_config)(kind, settings)
    known = (robots.RobotConfig if robot else teleoperators.TeleoperatorConfig).get_known_choices()
    needed = {field.name for field in fields(known[kind]) if field.default is MISSING} if kind in known else set()
    return "port" in needed


def tune(handler: Any, reply_s: Callable[[], float] = lambda: REPLY_S) -> None:
    """Let the servos' SDK wait for answers as long as they take, asleep: of itself it waits 50 ms, and never sleeps.

    Args:
        handler: the SDK's, open.
        reply_s: how long an answer may take to begin [s].
    """
    handler.ser.timeout = 1e-3
    with suppress(Exception):  # an FTDI chip keeps what came for 16 ms, unless told; most ports know no such thing
        handler.ser.set_low_latency_mode(True)

    def patience(length: int) -> None:
        handler.packet_start_time = handler.getCurrentTime()
        handler.packet_timeout = handler.tx_time_per_byte * (length + 3) + reply_s() * 1e3

    handler.setPacketTimeout = patience


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _there() -> str:
    found = ports()
    return f"there are: {', '.join(found)}" if found else "this machine has no serial port"
