"""Talking to a twin in another process: one JSON object a line on a Unix socket, one line back.

  {"command": "status"}                          counters, servos, what the task says
  {"command": "reset", "seed": 3}                a new scene; "variant", "place_arm" as Twin.reset has them
  {"command": "home"}                            somebody carries the arm to where episodes start
  {"command": "carry", "joints": [...], "arm": "leader"}      somebody moves an arm; null lets go
  {"command": "operate", "on": true}             somebody who knows the task carries the leader
  {"command": "faults", "faults": [{"kind": "stuck", "servo": 3}]}      [] mends everything
  {"command": "calibration", "arm": "leader"}    as LeRobot's file has it
  {"command": "events", "kind": "torque", "since": 0}         goals and torque edges

An answer is {"ok": true, ...} or {"ok": false, "error": "one line"}.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl.hardware.twin.faults import Fault

if TYPE_CHECKING:
    from vla_rl.hardware.twin.twin import Twin

LONGEST = 1 << 20
PATIENCE_S = 30.0


def _reset(
    twin: Twin, seed: int | None = None, variant: int | None = None, place_arm: bool = True
) -> Mapping[str, Any]:
    twin.reset(seed, None if variant is None else {"variant": variant}, place_arm)
    return twin.status()


def _home(twin: Twin) -> Mapping[str, Any]:
    twin.home()
    return twin.status()


def _carry(twin: Twin, joints: list[float] | None, arm: str = "follower", wait: bool = False) -> Mapping[str, Any]:
    twin.carry(joints, arm, wait)
    return {"joints": twin.joints(arm).tolist()}


def _operate(twin: Twin, on: bool) -> Mapping[str, Any]:
    twin.operate(on)
    return {}


def _faults(twin: Twin, faults: list[dict[str, Any]], arm: str = "follower") -> Mapping[str, Any]:
    twin.faults([Fault.from_dict(fault) for fault in faults], arm)
    return twin.status()


def _events(twin: Twin, kind: str = "", since: float = 0.0, arm: str = "follower") -> Mapping[str, Any]:
    return {"events": [asdict(event) for event in twin.events(kind, since, arm)]}


COMMANDS: dict[str, Callable[..., Mapping[str, Any]]] = {
    "status": lambda twin: twin.status(),
    "reset": _reset,
    "home": _home,
    "carry": _carry,
    "operate": _operate,
    "faults": _faults,
    "calibration": lambda twin, arm="follower": {"calibration": twin.calibration(arm)},
    "events": _events,
}


def answer(twin: Twin, line: bytes) -> dict[str, Any]:
    """Carry out one line."""
    try:
        request = json.loads(line)
        name = request.pop("command", None)
        if name not in COMMANDS:
            raise ValueError(f"unknown command '{name}'; there are: {', '.join(COMMANDS)}")
        return {"ok": True, **COMMANDS[name](twin, **request)}
    except (ValueError, TypeError, AttributeError, TimeoutError) as error:
        return {"ok": False, "error": " ".join(str(error).split())}


class ControlServer:
    """Listens at a path until it is closed.

    Args:
        twin: what is talked to.
        path: of the socket; what is there from before is replaced if it is a socket.

    Raises:
        FileExistsError: there is something that is no socket.
    """

    def __init__(self, twin: Twin, path: Path) -> None:
        if path.exists() and not path.is_socket():
            raise FileExistsError(f"{path} is no socket; choose another place for --control")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._twin, self.path = twin, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        os.chmod(path, 0o600)
        self._socket.listen()
        threading.Thread(target=self._accept, name="twin control", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=(connection,), name="twin talk", daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rwb") as file:
            while line := file.readline(LONGEST):
                file.write(json.dumps(answer(self._twin, line)).encode() + b"\n")
                file.flush()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.path.unlink(missing_ok=True)


class TwinControl:
    """The other end: somebody who talks to a twin.

    Args:
        path: of its socket.

    Raises:
        ConnectionError: nobody listens there.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_S)
        self._turn = threading.Lock()
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ConnectionError(f"no twin listens at {path}: {error}; start it with --control {path}") from error
        self._file = self._socket.makefile("rwb")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command; the answer.

        Raises:
            ValueError: the twin refuses; the message is its own.
            ConnectionError: it is gone.
        """
        with self._turn:
            self._file.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._file.flush()
            line = self._file.readline()
        if not line:
            raise ConnectionError("the twin has gone")
        result: dict[str, Any] = json.loads(line)
        if not result.pop("ok"):
            raise ValueError(f"the twin refuses '{command}': {result['error']}")
        return result

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()
