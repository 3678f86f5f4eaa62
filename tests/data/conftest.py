"""Data sets that several tests read; none of them writes into these."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_episodes import fill

from vla_rl.data.lerobot import export


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("collected") / "episodes")


@pytest.fixture(scope="session")
def png_set(store: Path) -> Path:
    return export(store, store.parent / "png")


@pytest.fixture(scope="session")
def video_set(store: Path) -> Path:
    return export(store, store.parent / "video", images="video")
