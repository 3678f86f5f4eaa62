"""Versions: weights that a learner pushes and a running policy or critic takes over, through a folder on one machine.

::

    FOLDER/000001/        a policy folder or a critic folder, complete
    FOLDER/000002/
    FOLDER/newest.json    {"version": 2, "name": "000002"}: replaced in one step once the folder is there, so that
                          whoever looks sees the old version or the new one, whole

Nothing is executed on loading: weights are safetensors, descriptions are JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from vla_rl.record.durable import sync_folder, whole_file

NEWEST = "newest.json"
KEPT = 3
_NAME = re.compile(r"\d{6}")
_LEFT_OUT = shutil.ignore_patterns("training_state.safetensors")


@dataclass(frozen=True)
class Version:
    """What is pushed: its number, from 1 on, and its folder."""

    number: int
    path: Path


def publish(root: str | Path, folder: str | Path) -> Version:
    """Push a copy of a policy or critic folder as the next version; the newest few are kept.

    Args:
        root: the versions' folder, made where it does not exist.
        folder: what `vla-rl train` leaves; the optimiser's state is left out.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    there = sorted(path for path in root.iterdir() if _NAME.fullmatch(path.name))
    number = int(there[-1].name) + 1 if there else 1
    place, fresh = root / f"{number:06d}", root / f".{number:06d}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder, fresh, ignore=_LEFT_OUT)
    os.replace(fresh, place)
    sync_folder(root)
    with whole_file(root / NEWEST) as file:
        file.write(json.dumps({"version": number, "name": place.name}).encode())
    for old in [*there, place][:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return Version(number, place)


def newest(root: str | Path) -> Version | None:
    """The newest version; None where nothing was pushed yet.

    Raises:
        ValueError: newest.json is no such file, or names something else than a version.
    """
    path = Path(root) / NEWEST
    try:
        said = json.loads(path.read_text())
        number, name = int(said["version"]), str(said["name"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} names no version: {error}") from error
    if not _NAME.fullmatch(name) or not (Path(root) / name).is_dir():
        raise ValueError(f"{path} names '{name}', which is no version in that folder")
    return Version(number, Path(root) / name)
