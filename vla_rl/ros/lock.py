"""HostLock: one holder on this host, whatever DDS has discovered by now."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from urllib.parse import quote


class HostLock:
    """Held until it is closed; the kernel lets go of it whatever happens to the process.

    Args:
        name: of what is held; two names are never one lock.

    Raises:
        ValueError: another process of this host holds it; one line with that process.
    """

    def __init__(self, name: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"vla_rl_{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file = (folder / f"{quote(name, safe='')}.lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(20).strip()
            self._file.close()
            raise ValueError(f"process {holder or 'unknown'} of this host holds {name}") from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        """Let go."""
        self._file.close()
