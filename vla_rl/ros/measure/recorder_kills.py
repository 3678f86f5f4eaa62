"""Recorder kills: recorder_node, the process, killed at random moments while three cameras send, and started again.

The supervisor starts it again, as `vla-rl up` would; it repairs its session by itself and goes on with a new episode.
What a kill cost shows in when the newest frame on the disk had come: the next was due a period later.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla_rl.record import cdr
from vla_rl.record.folder import SessionFolder, files
from vla_rl.record.mcap_file import read
from vla_rl.robot import arm_spec
from vla_rl.ros.bringup.options import record_graph
from vla_rl.ros.measure.frame_source import CAMERAS, PERIOD_NS
from vla_rl.ros.measure.stage import Stage

_BEGUN = 200_000  # bytes of an episode in which every camera is heard
_UP_S, _EACH_S = 60.0, 30.0  # patience for a start; what a kill takes at most


def kill_node(root: Path, times: int, seed: int = 0) -> dict[str, float]:
    """Kill the recorder's process so often.

    Args:
        root: the session, which does not exist.
        times: kills.
        seed: of their moments.

    Returns:
        `kills`, `closed_damaged`, `open_lost_max_ms` (from the first frame that is missing to the kill), `open_max_s`
        (from the kill to the next episode, the process's start included).
    """
    rng, known, killed, opened = random.Random(seed), dict[str, str](), list[int](), list[float]()
    asked = {"session": str(root), "cameras": ",".join(CAMERAS), "always": "true"}
    graph = record_graph(asked, ["recorder.dataset=false", "recorder.min_free_gb=0.0"])
    stage = Stage(graph, arm_spec("so101"), restarts=times)
    try:
        with _frames(times * _EACH_S):
            for number in range(times):
                stage.until(lambda: _size(root, number) > _BEGUN, _UP_S, "an episode is under way")  # noqa: B023
                stage.wait(rng.uniform(0.1, 1.5))
                killed.append(time.time_ns())
                os.kill(stage.supervisor.pid("recorder"), signal.SIGKILL)
                stage.until(lambda: _size(root, number + 1) > 0, _UP_S, "the recorder goes on")  # noqa: B023
                opened.append((time.time_ns() - killed[-1]) * 1e-9)
                known |= {name: digest for name, digest in _closed(root).items() if name not in known}
    finally:
        stage.close()
    now = _closed(root)
    damaged = sum(now.get(name) != digest for name, digest in known.items())
    lost = [_lost_ms(root / f"{number:06d}.mcap", at) for number, at in enumerate(killed)]
    return {
        "kills": times, "closed_damaged": damaged + len(SessionFolder(root).problems(thorough=True)),
        "open_lost_max_ms": max(lost), "open_max_s": max(opened),
    }  # fmt: skip


@contextmanager
def _frames(seconds: float) -> Iterator[None]:
    """Cameras that send meanwhile."""
    command = [sys.executable, "-m", "vla_rl.ros.measure.frame_source", "--seconds", str(seconds)]
    source = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        source.kill()
        source.wait()


def _size(root: Path, number: int) -> int:
    path = root / f"{number:06d}.mcap"
    return path.stat().st_size if path.is_file() else 0


def _closed(root: Path) -> dict[str, str]:
    """Digests of the complete episodes."""
    complete = [path for path in files(root) if path.with_suffix(".json").is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in complete}


def _lost_ms(path: Path, killed_ns: int) -> float:
    """From the moment at which the first frame that is missing should have come to the kill; 0 where none is."""
    newest = dict.fromkeys(CAMERAS, 0)
    for entry in read(path):
        camera = entry.topic.split("/")[1] if entry.topic.startswith("camera/") else ""
        if camera in newest and entry.kind in (cdr.IMAGE, cdr.COMPRESSED):
            newest[camera] = entry.log_ns
    return max(killed_ns - (min(newest.values()) + PERIOD_NS), 0) * 1e-6
