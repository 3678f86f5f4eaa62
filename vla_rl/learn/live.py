"""Live: what is loaded now, and in the background what a learner has pushed since; the new takes over between answers.

A version that can not be loaded, or does not fit, is told once and passed over: what runs goes on running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from vla_rl.learn.versions import Version, newest

EVERY_S = 1.0  # between two looks for a new version


class Live[T]:
    """The newest of what is pushed into a folder, loaded by a thread of its own.

    Args:
        first: what to begin with, version 0.
        folder: of `learn.versions`.
        load: a version's folder to what replaces the one before.
        say: takes one line about each version, in the thread.

    Attributes:
        number: of the version in use.
    """

    def __init__(self, first: T, folder: str | Path, load: Callable[[Path], T], say: Callable[[str], None]) -> None:
        self._folder, self._load, self._say, self._seen = Path(folder), load, say, 0
        self._newest, self.number = (0, first), 0
        self._refused = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def start(self) -> None:
        """Begin to look for versions."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what is in use stays in use."""
        self._stopping.set()
        self._thread.join(timeout=5.0)

    def take(self) -> T:
        """What is to be used from now on: call it between two answers, always from the same thread."""
        self.number, newest = self._newest  # read once: the other thread may load the next one meanwhile
        return newest

    def look(self) -> None:
        """Load a version that is newer than the last one seen."""
        try:
            found = newest(self._folder)
            if found is not None and found.number > self._seen:
                self._seen = found.number
                self._get(found)
        except Exception as error:  # whatever a learner writes, what runs goes on
            line = f"versions in {self._folder}: {error}".splitlines()[0]
            if line != self._refused:
                self._say(line)
            self._refused = line

    def _get(self, version: Version) -> None:
        self._newest = (version.number, self._load(version.path))
        self._say(f"version {version.number} is loaded and takes over")

    def _watch(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self.look()
