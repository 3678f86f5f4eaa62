"""Child processes of a supervisor: a process group and a log each, and gone when their parent is gone."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from vla_rl.ros.leaving import follow


class Child:
    """A Python module as a process that can be started again.

    Each lives in a process group of its own: the terminal's Ctrl-C reaches the supervisor alone, which stops things in
    their order. The kernel kills it should the supervisor die without having stopped it.

    Args:
        name: for log lines.
        command: `python -m MODULE ...`.
        environment: all of it.
        sink: is called with (name, line) from a thread of its own.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], sink: Callable[[str, str], None]
    ) -> None:
        self.name = name
        python, _, *rest = command
        self._command = [python, "-m", __name__, str(os.getpid()), *rest]
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._sink = sink
        self.starts = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it; from the main thread only, since the kernel ties a child to the thread that made it."""
        self.starts += 1
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._sink(self.name, line.rstrip("\n"))
        process.stdout.close()

    @property
    def pid(self) -> int:
        """Process id of the present start, 0 before the first."""
        return self._process.pid if self._process else 0

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll() if self._process else 0

    def said_all(self, patience_s: float = 1.0) -> None:
        """Wait until every line of a process that has ended has reached the sink."""
        if self._reader is not None:
            self._reader.join(patience_s)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process, if it still runs."""
        if self._process is not None and self.status is None:
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """End the process and whatever it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def main() -> None:
    """`python -m vla_rl.ros.bringup.processes PARENT MODULE ARGS`: MODULE, tied to the life of its parent."""
    parent, module, *arguments = sys.argv[1:]
    if not follow(int(parent), signal.SIGKILL):
        sys.exit(1)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
