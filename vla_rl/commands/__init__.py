"""Subcommands of vla-rl: each module has `add_arguments(parser)` and `run(args) -> Result`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a command leaves behind: JSON-ready data for --json and the exit status."""

    data: dict[str, Any]
    status: int = 0
