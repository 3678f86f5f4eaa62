"""Writing so that a crash, a kill or a full disk never leaves half a file under a final name."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY = ".partial"  # suffix of a file or folder that is still being written

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(OSError):
    """No room left on the disk; the message says what was kept and what to do."""


class LockedError(RuntimeError):
    """Another process is writing to the same place."""


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that the disk or the quota is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _FULL or isinstance(cause, DiskFullError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` complete and synced when the block ends, or not at all."""
    partial = path.with_name(path.name + TEMPORARY)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the kernel lets go of it when the process dies.

    Args:
        path: the lock's own file, made where it does not exist.
        what: what is locked, for the message.
        wait: wait for it instead of raising.

    Raises:
        LockedError: another process, or another object of this one, holds it; the message names `what`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockedError(f"{what} is being written by another process; wait or choose another place") from None
        yield
    finally:
        os.close(descriptor)
