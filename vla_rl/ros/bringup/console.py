"""What a supervisor shows: the nodes' lines with a prefix each, and a file a node where a folder is given."""

from __future__ import annotations

import contextlib
import queue
import re
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

# What rcutils is told to write, so that a line says its severity and its node.
ROS_FORMAT = {"RCUTILS_CONSOLE_OUTPUT_FORMAT": "[{severity}] [{name}]: {message}", "RCUTILS_COLORIZED_OUTPUT": "0"}
_ROS_LINE = re.compile(r"\[(DEBUG|INFO|WARN|ERROR|FATAL)\] \[([\w./]+)\]: (.*)")
_BACKLOG = 2000  # lines; a terminal that does not take them loses the rest and never stops a node
_ERRORS = ("ERROR", "FATAL")


class Console:
    """Takes lines from any thread and never makes the caller wait for the terminal.

    Args:
        names: nodes and processes that write.
        out: where lines go.
        folder: one file a node is written there; "" writes none.
    """

    def __init__(self, names: Iterable[str], out: TextIO | None = None, folder: str = "") -> None:
        self._names = frozenset(names)
        self._width = max(map(len, self._names), default=0)
        self._out = out or sys.stdout
        self._folder = Path(folder) if folder else None
        self._files: dict[str, TextIO] = {}
        self._lock = threading.Lock()
        self._lines: queue.Queue[str | None] = queue.Queue(_BACKLOG)
        self.lost = 0
        self.closed = False
        self._errors: dict[str, str] = {}
        self._last: dict[str, str] = {}
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._printer = threading.Thread(target=self._print, daemon=True)
        self._printer.start()

    def line(self, process: str, text: str) -> None:
        """One line of a process, which may name the node that wrote it."""
        found = _ROS_LINE.fullmatch(text)
        name = process
        if found:
            severity, logger, text = found.groups()
            name = _node(logger, self._names) or process
            text = text if severity == "INFO" else f"{severity} {text}"
            if severity in _ERRORS:
                self._errors[process] = self._errors[name] = found.group(3)
        self._last[process] = self._last[name] = text if text.strip() else self._last.get(process, "")
        self._write_file(name, text)
        self._put(f"{name:<{self._width}} | {text}")

    def say(self, text: str) -> None:
        """One line of the supervisor itself."""
        self._write_file("supervisor", text)
        self._put(f"vla-rl: {text}")

    def reason(self, name: str) -> str:
        """The last error that a node or process told, else the last thing it said at all."""
        return self._errors.get(name) or self._last.get(name, "")

    def close(self) -> None:
        """Print what is left and close the files."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=1.0)
        self._printer.join(1.0)
        with self._lock:
            for file in self._files.values():
                file.close()
            self._folder = None

    def _put(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                print(line, file=self._out, flush=True)
            except (OSError, ValueError):
                self.closed = True  # nobody reads any more
                return

    def _write_file(self, name: str, text: str) -> None:
        with self._lock:
            if self._folder is None:
                return
            if name not in self._files:
                self._files[name] = (self._folder / f"{name}.log").open("a", buffering=1)
            now = time.time()
            stamp = time.strftime("%H:%M:%S", time.localtime(now))
            self._files[name].write(f"{stamp}.{int(now * 1000) % 1000:03d} {text}\n")


def _node(logger: str, names: frozenset[str]) -> str:
    """The node that a logger belongs to: `left.control` and `control.child` are control's; "" where none fits."""
    return next((part for part in reversed(logger.split(".")) if part in names), "")
