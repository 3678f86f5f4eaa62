"""startup: how long the command line takes to answer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

COMMANDS = {
    "help_s": ("-m", "vla_rl", "--help"),
    "import_s": ("-c", "import vla_rl"),
    "python_s": ("-c", "pass"),
}


def run(quick: bool = False) -> dict[str, Any]:
    """Median wall time of fresh processes [s]: `vla-rl --help`, `import vla_rl`, and Python alone."""
    repetitions = 3 if quick else 11
    return {"metrics": {key: _median(arguments, repetitions) for key, arguments in COMMANDS.items()}, "against": {}}


def _median(arguments: tuple[str, ...], repetitions: int) -> float:
    return statistics.median(_time(arguments) for _ in range(repetitions))


def _time(arguments: tuple[str, ...]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
