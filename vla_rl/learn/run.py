"""A run's folder: whose it is, whether it may be written, and what stops a run from outside."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from vla_rl.learn.config import RunConfig
from vla_rl.record.durable import TEMPORARY, whole_file

RUN = "run.json"


def check_out(out: Path, config: RunConfig) -> None:
    """Refuse a folder that is not this run's; nothing is written.

    Raises:
        ValueError: `out` is a file, holds something else, or a run that --resume does not ask for or does not fit.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; choose a folder")
    names = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    held = [n for n in names if not n.startswith(".") and not n.endswith(TEMPORARY)]
    if not held:
        return
    if RUN not in held:
        raise ValueError(f"--out {out} holds something else ({', '.join(held[:3])}); choose another folder")
    if not config.resume:
        raise ValueError(f"--out {out} holds a run already; add --resume to go on with it, or choose another folder")
    earlier = json.loads((out / RUN).read_text())
    different = config.differences(earlier["config"])
    if different:
        raise ValueError(f"--resume: {out} was started otherwise: {'; '.join(different)}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file in one atomic step."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def provenance() -> dict[str, Any]:
    """What made a checkpoint: versions of the libraries that matter, the git commit of this source ("" outside git)."""
    names = ("vla_rl", "torch", "lerobot", "diffusers", "transformers", "numpy", "accelerate")
    return {"git": _commit(), "python": platform.python_version(), "versions": {n: _version(n) for n in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Interrupt:
    """Ctrl-C or SIGTERM asks the loop to end after its step; a second one ends at once."""

    def __init__(self) -> None:
        """Nothing asked yet; handlers are set on entering."""
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        """Take over both signals, where this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
