"""Checkpoints that are whole or not there: written aside, fsynced, renamed; after any kill the newest is found again.

::

    OUT/run.json                     what this run is; its presence makes OUT ours
    OUT/checkpoints/step-000500/     a LeRobot policy folder (config.json, model.safetensors, processors)
                    .../training_state.safetensors, training.json    what training needs to go on
    OUT/checkpoints/last, best       symbolic links, replaced atomically
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_rl.record.durable import sync_folder

RECORD = "training.json"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the folder and says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose files are all there, byte for byte.

    Attributes:
        path: its folder, a LeRobot policy folder.
        record: contents of its training.json.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps taken when it was written."""
        return int(self.record["step"])


def warn(line: str) -> None:
    """One line on standard error."""
    print(f"vla-rl: {line}", file=sys.stderr)


class CheckpointStore:
    """The checkpoints of one run: the newest `keep` and the best one stay."""

    def __init__(self, root: Path, keep: int = 3, warn: Callable[[str], None] = warn) -> None:
        """Open the store, creating nothing.

        Args:
            root: folder of the checkpoints, `OUT/checkpoints`.
            keep: how many of the newest to keep, at least 1.
            warn: told in one line of each checkpoint that had to be passed over.
        """
        self.root, self.keep, self.warn = root, keep, warn

    def save(self, step: int, write: Callable[[Path], None], record: Mapping[str, Any]) -> Checkpoint:
        """Write one checkpoint: after this it is there whole, or the older ones are as they were.

        Args:
            step: optimiser steps taken.
            write: fills the folder it is given.
            record: JSON-ready facts; `score` among them (lower is better) decides which one is `best`.

        Raises:
            OSError: disk full or not writable; nothing is left behind.
        """
        final = self.root / f"step-{step:06d}"
        partial = self.root / f".partial-{final.name}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            write(partial)
            full = {**record, "step": step, "files": _fingerprints(partial)}
            (partial / RECORD).write_text(json.dumps(full, indent=1))
            _sync(partial)
            self._discard(final)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self.root)
        self._point("last", final)
        if _score(full) <= self._best_score():
            self._point("best", final)
        self._prune()
        return Checkpoint(final, full)

    def newest(self) -> Checkpoint | None:
        """The newest valid checkpoint, or None; each newer one that is damaged is named through `warn`."""
        for folder in reversed(self.folders()):
            try:
                return verify(folder)
            except CheckpointError as error:
                self.warn(f"{error}; trying the one before it")
        return None

    def folders(self) -> list[Path]:
        """Every finished checkpoint folder, valid or not, oldest first."""
        found = [p for p in self.root.glob("step-*") if p.is_dir() and p.name.removeprefix("step-").isdecimal()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))

    def tidy(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for leftover in (*self.root.glob(".partial-*"), *self.root.glob(".discarded-*")):
            shutil.rmtree(leftover, ignore_errors=True)

    def _point(self, name: str, target: Path) -> None:
        """Make the link `name` lead to `target` in one atomic step."""
        fresh = self.root / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target.name)
        fresh.replace(self.root / name)
        sync_folder(self.root)

    def _best_score(self) -> float:
        try:
            return _score(json.loads((self.root / "best" / RECORD).read_text()))
        except (OSError, ValueError):
            return float("inf")

    def _prune(self) -> None:
        best = (self.root / "best").resolve()
        for old in self.folders()[: -self.keep]:
            if old.resolve() != best:
                self._discard(old)

    def _discard(self, folder: Path) -> None:
        """Remove a checkpoint; a kill in the middle leaves no half checkpoint under its name."""
        if folder.exists():
            doomed = self.root / f".discarded-{folder.name}"
            shutil.rmtree(doomed, ignore_errors=True)
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def verify(folder: Path) -> Checkpoint:
    """Read a checkpoint's record and compare every file with it.

    Raises:
        CheckpointError: no record, a file is missing, truncated or changed.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        files, step = record["files"], int(record["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder} has no readable {RECORD} ({type(error).__name__})") from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"checkpoint {folder} lacks {name}")
        if path.stat().st_size != expected["bytes"]:
            raise CheckpointError(
                f"checkpoint {folder}: {name} is truncated, {path.stat().st_size} of {expected['bytes']} bytes"
            )
        if _sha256(path) != expected["sha256"]:
            raise CheckpointError(f"checkpoint {folder}: {name} (step {step}) differs from what was written")
    return Checkpoint(folder, record)


def resolve(path: str | Path) -> Path:
    """The policy, critic or classifier folder meant by a path: itself, or the newest valid checkpoint of a run folder.

    Raises:
        CheckpointError: neither such a folder nor a run with a valid checkpoint.
    """
    folder = Path(path)
    if any((folder / name).is_file() for name in ("config.json", "critic.json", "classifier.json")):
        return folder
    for root in (folder / "checkpoints", folder):
        found = CheckpointStore(root).newest() if root.is_dir() else None
        if found is not None:
            return found.path
    raise CheckpointError(
        f"no policy in {folder}: neither config.json (critic.json) nor checkpoints/step-* that are whole"
    )


def _fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a folder, by relative name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _score(record: Mapping[str, Any]) -> float:
    score = record.get("score")
    return float("inf") if score is None else float(score)


def _sync(folder: Path) -> None:
    """Force a folder and all below it to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync_folder(path)
