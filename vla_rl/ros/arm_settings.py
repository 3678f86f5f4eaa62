"""Settings of LeRobot's as text: YAML on a command line, or a file of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FILES = (".yaml", ".yml", ".json")
_LARGEST = 100_000  # bytes of a settings file


def mapping(name: str, text: str) -> Mapping[str, Any]:
    """A mapping from YAML, or from the file of that name.

    Raises:
        ValueError: it is neither.
    """
    if text.endswith(FILES):
        if not Path(text).is_file() or Path(text).stat().st_size > _LARGEST:
            raise ValueError(f"{name}: there is no file {text} of at most {_LARGEST} bytes")
        text = Path(text).read_text()
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} must be a mapping, {{front: {{type: opencv, ...}}}} for one; got {text[:60]!r}")
    return found
