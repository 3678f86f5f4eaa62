"""What tells two checkpoints apart, for those who never load them (no torch here)."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(folder: str | Path, name: str = "model.safetensors") -> str:
    """SHA-256 of a folder's weights: what tells two checkpoints apart; "" where there are none."""
    weights = Path(folder) / name
    if not weights.is_file():
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
