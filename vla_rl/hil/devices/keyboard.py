"""A terminal's keyboard. A terminal tells of keys that go down and repeat, never that one is let go."""

from __future__ import annotations

import contextlib
import re
import termios
import tty
from typing import Any

from vla_rl.hil.device import Command
from vla_rl.hil.devices.file import DeviceFile
from vla_rl.hil.driving import Driving

HELD_S = 0.12  # a key counts as held for so long after each time the terminal repeats it
REPEAT_NS = round(HELD_S * 1e9)  # a key that comes again so soon is held down, and no second press [ns]
_BUTTONS = {
    " ": "toggle", "\r": "success", "\n": "success", "\x7f": "failure", "\x1b[3~": "discard", "n": "start",
    "N": "start", "b": "rerecord", "B": "rerecord", "\x1b": "stop", "p": "pause", "P": "resume", "0": "reset_stop",
    "\t": "end",
}  # fmt: skip
_CODES = {
    "\x1b[A": "ArrowUp", "\x1b[B": "ArrowDown", "\x1b[C": "ArrowRight", "\x1b[D": "ArrowLeft",
    "\x1b[5~": "PageUp", "\x1b[6~": "PageDown",
}  # fmt: skip
# A sequence (arrows, F1 as \x1bOP or \x1b[[A, ...) or a character; an escape never goes under in another's sequence.
_KEY = re.compile(r"\x1b(?:\[\[|[\[O][\d;]*)[A-Za-z~]|.", re.DOTALL)


class Keyboard:
    """The keys of a terminal as commands: letters and arrows drive, with shift slowly; space takes over, hands back.

    Args:
        driving: keys to twists.
        path: of the terminal.

    Raises:
        OSError: there is no such terminal.
    """

    name = "keyboard"

    def __init__(self, driving: Driving, path: str = "/dev/tty") -> None:
        self._driving, self._file = driving, DeviceFile(path)
        self._down: dict[str, int] = {}
        self._pressed: dict[str, int] = {}
        self._mode: list[Any] = []
        with contextlib.suppress(termios.error):  # a pipe is no terminal, and needs no setting
            self._mode = termios.tcgetattr(self._file.handle)
            tty.setcbreak(self._file.handle)
        self._file.read(0)  # what was pressed before we listened is not meant

    def read(self, now_ns: int) -> Command | None:
        """What is held down; None where the terminal is gone."""
        said = self._file.read(now_ns)
        if said is None:
            return None
        buttons = []
        for key in _KEY.findall(b"".join(said).decode(errors="replace")):
            if (button := _BUTTONS.get(key)) is not None:
                held = now_ns - self._pressed.get(key, -REPEAT_NS) < REPEAT_NS
                buttons += [button] if button == "stop" or not held else []
                self._pressed[key] = now_ns
            for code in _codes(key):
                self._down[code] = now_ns
        self._down = {code: at for code, at in self._down.items() if now_ns - at < HELD_S * 1e9}
        command = self._driving(self._down)
        return Command(twist=command.twist, gripper=command.gripper, buttons=tuple(buttons))

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._mode and self._file.handle >= 0:
            termios.tcsetattr(self._file.handle, termios.TCSANOW, self._mode)
        self._file.close()


def _codes(key: str) -> list[str]:
    """The browser's codes of a key of the terminal."""
    plain = key.replace("[1;2", "[").replace(";2", "")  # xterm's way to say shift: \x1b[1;2A, \x1b[5;2~
    letter = len(key) == 1 and key.isascii() and key.isalpha()
    code = f"Key{key.upper()}" if letter else _CODES.get(plain)
    shifted = key.isupper() if letter else plain != key
    return [] if code is None else [code, *(["ShiftLeft"] if shifted else [])]
