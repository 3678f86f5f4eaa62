"""A device on tape: what it said is written down, and said again later, for tests, benches and bug reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.hil.device import Command, Device

_LARGEST = 256 << 20  # bytes
LAST_S = 0.02  # how long a tape's last word holds: about a period of hil_node's [s]
_VECTORS = ("targets", "velocities", "twist")


class Tape:
    """Says again what was said, by the time since it was read first; lost where the script says so, and at its end.

    Args:
        script: (seconds since the first read, what is said from then on; None: lost), in order.
        name: of the device.

    Raises:
        ValueError: the times do not grow.
    """

    def __init__(self, script: Sequence[tuple[float, Command | None]], name: str = "replay") -> None:
        if any(later <= before for (before, _), (later, _) in pairwise(script)):
            raise ValueError(f"a script's times must grow: {name}")
        self.name, self._script, self._at, self._began_ns = name, script, -1, -1

    @classmethod
    def load(cls, path: str) -> Tape:
        """What a `Taped` wrote.

        Raises:
            ValueError: the file is too large, or a line is none of a tape's; the message says which.
        """
        if Path(path).stat().st_size > _LARGEST:
            raise ValueError(f"{path} is larger than {_LARGEST} bytes: no tape")
        script = []
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            try:
                entry = json.loads(line)
                script.append((float(entry["s"]), _command(entry["says"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: no command of a device ({error})") from None
        return cls(script, f"replay of {Path(path).name}")

    def read(self, now_ns: int) -> Command | None:
        """What was said at this time; buttons once."""
        self._began_ns = now_ns if self._began_ns < 0 else self._began_ns
        before, seconds = self._at, (now_ns - self._began_ns) * 1e-9
        while self._at + 1 < len(self._script) and self._script[self._at + 1][0] <= seconds:
            self._at += 1
        passed = [said.buttons for _, said in self._script[before + 1 : self._at + 1] if said is not None]
        said = self._script[self._at][1] if self._at >= 0 else Command()
        if said is None or seconds > self._script[-1][0] + LAST_S:
            return None
        return Command(said.targets, said.velocities, said.twist, said.gripper, tuple(chain.from_iterable(passed)))

    def close(self) -> None:
        """Nothing to let go of."""


class Taped:
    """A device whose every word is written down.

    Args:
        device: whose.
        path: JSON lines, one for each change of what it says.

    Raises:
        OSError: the file can not be written.
    """

    def __init__(self, device: Device, path: str) -> None:
        self._device, self.name, self._began_ns = device, device.name, -1
        self._file = open(path, "w", buffering=1)  # noqa: SIM115
        self._last, self._read_s = "", 0.0

    def read(self, now_ns: int) -> Command | None:
        """What the device says."""
        said = self._device.read(now_ns)
        self._began_ns = now_ns if self._began_ns < 0 else self._began_ns
        self._read_s = (now_ns - self._began_ns) * 1e-9
        text = json.dumps(_plain(said))
        if text != self._last or (said is not None and said.buttons):
            self._tell(self._read_s, text)
            self._last = text
        return said

    def _tell(self, seconds: float, text: str) -> None:
        self._file.write(f'{{"s": {seconds:.6f}, "says": {text}}}\n')

    def close(self) -> None:
        """Let go of the device, and of the file, which says for how long its last word held."""
        self._tell(self._read_s + LAST_S, "null")
        self._device.close()
        self._file.close()


def _plain(command: Command | None) -> dict[str, Any] | None:
    if command is None:
        return None
    vectors = {name: getattr(command, name) for name in _VECTORS}
    said = {name: np.asarray(vector).tolist() for name, vector in vectors.items() if vector is not None}
    return {**said, "gripper": command.gripper, "buttons": command.buttons}


def _command(plain: Mapping[str, Any] | None) -> Command | None:
    if plain is None:
        return None
    vectors = {name: np.array(plain[name], dtype=np.float64) for name in _VECTORS if name in plain}
    return Command(**vectors, gripper=float(plain["gripper"]), buttons=tuple(plain["buttons"]))
