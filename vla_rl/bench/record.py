"""Record: three 640x480 cameras at 30 Hz, raw, beside the whole graph with its policy and two busy loops.

Every frame is numbered, in its stamp and in its picture: what the file has is held against what was sent, frame by
frame. The recorder is a node of the graph and writes to the disk of the temporary folder (TMPDIR).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.record import cdr
from vla_rl.record.folder import EpisodeEntry, SessionFolder
from vla_rl.record.frames import file_of
from vla_rl.record.mcap_file import Entry, read

SECONDS, BUSY = 600.0, 2


def run(quick: bool = False, seconds: float = 0.0) -> dict[str, Any]:
    """Record for ten minutes (`quick`: ten seconds), or for so many `seconds`.

    Returns:
        `metrics`: frames_in (sent), frames_out (in the file, each with its own number in stamp and picture), frames_hz
        (of each camera, sent a second: less than 30 where the machine did not keep up with sending), lost, misaligned,
        counted_in and counted_out (the recorder's own counts), steps, steps_lost (control/step), cpu_cores (of the
        recorder), sync_p99_ms, megabytes_a_minute, seconds.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    seconds = seconds or (10.0 if quick else SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        sent, cpu = _record(Path(folder) / "session", seconds)
        entry = SessionFolder(Path(folder) / "session").episodes()[-1]
        return {"metrics": {**_figures(entry, sent), "cpu_cores": cpu, "seconds": seconds}}


def _record(root: Path, seconds: float) -> tuple[dict[str, Any], float]:
    """What the source sent, and the processor time that the recorder took a second."""
    from vla_rl.robot import arm_spec
    from vla_rl.ros.bringup.graph import NodeSpec, ProcessSpec
    from vla_rl.ros.bringup.options import sim_graph
    from vla_rl.ros.measure.frame_source import CAMERAS
    from vla_rl.ros.measure.stage import Stage

    graph = sim_graph()
    parameters: dict[str, Any] = {"session": str(root), "cameras": list(CAMERAS), "always": True, "dataset": False}
    node = NodeSpec("recorder", {**parameters, "min_free_gb": 0.5}, after=("control",))
    stage = Stage(
        replace(graph, processes=(ProcessSpec("recorder", "recorder_node", (node,)), *graph.processes)),
        arm_spec("so101"),
    )
    try:
        stage.new_episode("lift", 4_000_000)
        with _busy(BUSY):
            before, start = _cpu_s(stage.supervisor.pid("recorder")), time.monotonic()
            command = [sys.executable, "-m", "vla_rl.ros.measure.frame_source", "--seconds", str(seconds)]
            source = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stage.until(lambda: source.poll() is not None, 10 * seconds + 120.0, "every frame is sent")
            cpu = (_cpu_s(stage.supervisor.pid("recorder")) - before) / (time.monotonic() - start)
            said = source.communicate()[0]
    finally:
        stage.close()
    if source.returncode:
        raise RuntimeError("the source of frames failed")
    return dict(json.loads(said.splitlines()[-1])), cpu


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Programs of ordinary priority that do nothing but compute."""
    program = "import os; os.setpriority(os.PRIO_PROCESS, 0, 0)\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figures(entry: EpisodeEntry, sent: dict[str, Any]) -> dict[str, float]:
    from vla_rl.ros.measure.frame_source import CAMERAS

    found, misaligned = Counter[str](), 0
    seen: set[tuple[int, int]] = set()
    for message in read(entry.path):
        camera = message.topic.split("/")[1] if message.topic.startswith("camera/load") else ""
        if camera and message.kind in (cdr.IMAGE, cdr.COMPRESSED):
            number = _number(message, CAMERAS.index(camera), sent["first_ns"])
            misaligned += number is None or (number, CAMERAS.index(camera)) in seen
            found[camera] += number is not None
            seen.add((-1 if number is None else number, CAMERAS.index(camera)))
    counts = [entry.meta["topics"][f"camera/{camera}/image_raw"] for camera in CAMERAS]
    steps = entry.meta["topics"]["control/step"]
    return {
        "frames_in": sent["sent"] * len(CAMERAS), "frames_out": sum(found.values()), "frames_hz": sent["hz"],
        "lost": sent["sent"] * len(CAMERAS) - len(seen - {(-1, c) for c in range(len(CAMERAS))}),
        "misaligned": misaligned,
        "counted_in": sum(c["in"] for c in counts), "counted_out": sum(c["out"] for c in counts),
        "steps": steps["out"], "steps_lost": steps["lost"], "sync_p99_ms": entry.meta["sync_p99_ms"],
        "megabytes_a_minute": entry.meta["bytes"] / 1e6 / entry.meta["seconds"] * 60,
    }  # fmt: skip


def _number(message: Entry, camera: int, first_ns: int) -> int | None:
    """The number of a frame; None where stamp and picture disagree, or it is another camera's."""
    import cv2

    from vla_rl.ros.measure.frame_source import read as read_code
    from vla_rl.ros.measure.frame_source import stamped

    picture = np.frombuffer(file_of(message.data, message.kind), np.uint8)
    number, drawn = read_code(np.asarray(cv2.imdecode(picture, cv2.IMREAD_REDUCED_GRAYSCALE_8), np.uint8))
    return number if drawn == camera and stamped(first_ns, number) == cdr.stamp_ns(message.data) else None
