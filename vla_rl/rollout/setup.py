"""What a benchmark of trained policies is about, read from a JSON file into its dataclass."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any


def read_setup[S](kind: type[S], path: Path, of: str) -> S:
    """A dataclass from JSON; `about` is for readers.

    Args:
        kind: the dataclass.
        path: the file.
        of: what it should be the setup of, for messages.

    Raises:
        ValueError: it is no such file; names what is missing or unknown.
    """
    try:
        given = json.loads(path.read_text())
        known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        unknown = sorted(set(given) - known - {"about"})
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        found: dict[str, Any] = {name: value for name, value in given.items() if name in known}
        return kind(**found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the setup of {of}: {error}") from error
