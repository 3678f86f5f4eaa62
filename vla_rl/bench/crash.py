"""Crash: the recorder killed at random moments, and the disk full, again and again; what is left on the disk?

Most kills are of recorder_node's pipeline without DDS: three 640x480 cameras and control/step at 30 Hz, episodes of
about a second, each marked, in a process of its own that says what it was given; some repairs are killed, too. A part
of the kills is of recorder_node itself, with its cameras on topics (`vla_rl.ros.measure.recorder_kills`). The full disk
is a tmpfs of 32 MB in a mount namespace of its own (`unshare`).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.record import cdr
from vla_rl.record.durable import DiskFullError
from vla_rl.record.folder import SessionFolder, files
from vla_rl.record.marks import Marks
from vla_rl.record.mcap_file import verified
from vla_rl.record.recorder import Message, Recorder
from vla_rl.record.recording import warm_up
from vla_rl.record.session import Session, SessionConfig
from vla_rl.types import Outcome

CAMERAS, RATE, DISK_MB = ("front", "side", "wrist"), 30.0, 32
NODE_SHARE = 10  # one of so many kills is of the node
STEP, _KEPT = "control/step", tuple(f"camera/{camera}/compressed" for camera in CAMERAS)


def run(quick: bool = False, kills: int = 0, fills: int = 0) -> dict[str, Any]:
    """Kill and fill.

    Args:
        quick: 20 kills and 5 full disks instead of 200 and 50.
        kills, fills: other numbers of them.

    Returns:
        `metrics`: kills, repair_kills, closed_damaged, open_lost_p99_ms, open_lost_max_ms (between the first message
        that is missing and the last one given), open_max_s, episodes; node_kills (of these, of recorder_node),
        node_open_lost_max_ms, node_open_max_s (the process's start included); fills, fill_stop_max_ms,
        fill_closed_damaged, fill_refused.
    """
    from vla_rl.ros.measure.recorder_kills import kill_node

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    kills = kills or (20 if quick else 200)
    of_node = -(-kills // NODE_SHARE)
    with tempfile.TemporaryDirectory() as folder:
        metrics = kill(Path(folder) / "session", max(kills - of_node, 1))
    with tempfile.TemporaryDirectory() as folder:
        node = kill_node(Path(folder) / "session", of_node)
    both = {key: metrics[key] + node[key] for key in ("kills", "closed_damaged")}
    its = {f"node_{key}": node[key] for key in ("open_lost_max_ms", "open_max_s")} | {"node_kills": node["kills"]}
    return {"metrics": metrics | both | its | _on_a_small_disk(fills or (5 if quick else 50))}


def kill(root: Path, times: int, seed: int = 0) -> dict[str, float]:
    """Kill the recorder of one session so often; see `run`."""
    rng, known = random.Random(seed), dict[str, str]()
    lost, opened, damaged, repairs = [], [], 0, 0
    context = multiprocessing.get_context("fork")
    warm_up()  # children inherit what is loaded
    for number in range(8):
        _scene(number)
    for _ in range(times):
        said, saying = context.Pipe(duplex=False)
        child = context.Process(target=_record, args=(root, saying))
        child.start()
        saying.close()
        given = _until(said, time.monotonic() + 0.2 + 1.8 * rng.random())
        if not child.is_alive():
            raise RuntimeError("the recorder ended by itself")
        child.kill()
        given += _rest(said)
        child.join()
        lost.append(_lost_ms(root, given))
        if rng.random() < 0.2:
            repairs += _kill_a_repair(context, root, rng.random() * 0.03)
        start = time.monotonic()
        _session(root).close()
        opened.append(time.monotonic() - start)
        damaged += _changed(root, known)
    return {
        "kills": times, "repair_kills": repairs, "closed_damaged": damaged,
        "open_lost_p99_ms": float(np.percentile(lost, 99)), "open_lost_max_ms": max(lost),
        "open_max_s": max(opened), "episodes": len(SessionFolder(root).episodes()),
    }  # fmt: skip


def fill(root: Path, times: int, seed: int = 0) -> dict[str, float]:
    """Fill the disk of a session so often while an episode is under way; see `run`."""
    rng, known, stopped, damaged, refused = random.Random(seed), dict[str, str](), [], 0, 0
    filler = root.with_name("filler")
    for _ in range(times):
        session = _session(root)
        recorder = Recorder(session)
        _play(recorder, 0, 0.3)
        low = shutil.disk_usage(root).free - (1 + rng.randrange(4)) * 2**19
        filler.write_bytes(bytes(max(low, 0)))
        stopped.append(_until_full(recorder))
        with suppress(OSError):
            recorder.close()
        refused += _refuses(root)
        filler.unlink()
        _session(root).close()
        damaged += _changed(root, known)
        for path in files(root)[:-2]:  # make room for the next
            known.pop(path.name)
            path.with_suffix(".json").unlink()
            path.unlink()
    return {
        "fills": times, "fill_stop_max_ms": 1e3 * max(stopped), "fill_closed_damaged": damaged, "fill_refused": refused
    }  # fmt: skip


def _on_a_small_disk(times: int) -> dict[str, float]:
    """`fill` on a tmpfs that only a child process sees; without figures where the system does not allow that."""
    with tempfile.TemporaryDirectory() as folder:
        mount = f"mount -t tmpfs -o size={DISK_MB}m tmpfs {folder} && exec "
        command = f"{mount} {sys.executable} -m {__name__} {folder} {times}"
        done = subprocess.run(["unshare", "-rm", "sh", "-c", command], stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def _session(root: Path) -> Session:
    from vla_rl.robot import arm_spec

    return Session(root, arm_spec("so101"), list(CAMERAS), SessionConfig(min_free=0, low_water=0))


def _record(root: Path, say: Any) -> None:
    """The child: episodes of about a second until it is killed."""
    recorder = Recorder(_session(root))
    for number in range(10**6):
        _play(recorder, number, 0.3 + 0.9 * random.random(), say.send)


def _play(
    recorder: Recorder, number: int, seconds: float, say: Callable[[tuple[int, int]], None] = lambda _: None
) -> None:
    """One episode with pictures and steps at their pace; `say` is told (step, monotonic time) before each is given."""
    recorder.mark(Marks(recording=True, ordinal=number))
    for step in _paced(seconds):
        say((step, time.monotonic_ns()))
        _give(recorder, step)
    recorder.mark(Marks(ordinal=number, outcome=Outcome.SUCCESS))


def _until_full(recorder: Recorder) -> float:
    """Record until the disk is full; time from the first failed write to the line that says so [s]."""
    failed: list[float] = []
    recorder._failed = lambda _: failed.append(time.monotonic())
    recorder.mark(Marks(recording=True, ordinal=1))
    for step in _paced(60.0):
        _give(recorder, step)
        if failed:
            break
    try:
        recorder.mark(Marks(ordinal=1))
    except DiskFullError:
        return time.monotonic() - failed[0]
    raise RuntimeError("the disk was full, and nobody said so")


def _paced(seconds: float) -> Iterator[int]:
    start = time.monotonic()
    for step in range(max(1, round(seconds * RATE))):
        time.sleep(max(0.0, start + step / RATE - time.monotonic()))
        yield step


def _give(recorder: Recorder, step: int) -> None:
    now = time.monotonic_ns()
    stamp = time.time_ns()
    for camera in CAMERAS:
        recorder.take(Message(f"camera/{camera}/image_raw", cdr.IMAGE, _picture(step, stamp), now))
    empty = np.zeros(0)
    vector = cdr.make(
        cdr.JOINT_STATE, header=cdr.header(stamp), name=["step"], position=np.array([float(step)]), velocity=empty,
        effort=empty,
    )  # fmt: skip
    recorder.take(Message(STEP, cdr.JOINT_STATE, cdr.encode(vector, cdr.JOINT_STATE), now))


def _picture(step: int, stamp_ns: int) -> bytes:
    """A serialised picture of one of a few scenes, with its stamp."""
    scene = _scene(step % 8)
    return scene[:4] + struct.pack("<iI", *divmod(stamp_ns, 10**9)) + scene[12:]


@cache
def _scene(number: int) -> bytes:
    shades = np.broadcast_to(np.arange(640 * 3, dtype=np.int64)[None] // 8 + 8 * number, (480, 640 * 3))
    noise = np.random.default_rng(number).integers(0, 8, (480, 640 * 3))
    image = cdr.make(
        cdr.IMAGE, header=cdr.header(0), height=480, width=640, encoding="rgb8", is_bigendian=0, step=640 * 3,
        data=(shades + noise).astype(np.uint8).reshape(-1),
    )  # fmt: skip
    return cdr.encode(image, cdr.IMAGE)


def _until(said: Any, end: float) -> list[tuple[int, int]]:
    """What the child says before a monotonic time [s]."""
    given = []
    while (left := end - time.monotonic()) > 0:
        if said.poll(left):
            with suppress(EOFError):
                given.append(said.recv())
    return given


def _rest(said: Any) -> list[tuple[int, int]]:
    given = []
    with suppress(EOFError, OSError):
        while said.poll(0):
            given.append(said.recv())
    return given


def _lost_ms(root: Path, given: list[tuple[int, int]]) -> float:
    """How much of the open episode's end is missing; 0 where none was open."""
    open_files = [path for path in files(root) if not path.with_suffix(".json").is_file()]
    starts = [i for i, (step, _) in enumerate(given) if step == 0]
    if not open_files or not starts:
        return 0.0
    counts: dict[str, int] = {}
    for entry in verified(open_files[-1]):
        counts[entry.topic] = counts.get(entry.topic, 0) + 1
    steps = given[starts[-1] :]
    repeated = int(starts[-1] > 0)  # an episode begins with the newest frames of the one before
    there = min(counts.get(STEP, 0), *(counts.get(topic, 0) - repeated for topic in _KEPT))
    return (steps[-1][1] - steps[there][1]) / 1e6 if there < len(steps) else 0.0


def _kill_a_repair(context: Any, root: Path, after_s: float) -> int:
    child = context.Process(target=lambda: _session(root).close())
    child.start()
    time.sleep(after_s)
    killed = child.is_alive()
    child.kill()
    child.join()
    return int(killed)


def _changed(root: Path, known: dict[str, str]) -> int:
    """How many closed episodes are not what they were, or not what their JSON says; learns the new ones."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files(root)}
    damaged = sum(found.get(name) != digest for name, digest in known.items())
    known.update(found)
    return damaged + len(SessionFolder(root).problems(thorough=True))


def _refuses(root: Path) -> int:
    from vla_rl.robot import arm_spec

    try:
        Session(root, arm_spec("so101"), list(CAMERAS), SessionConfig(min_free=16 << 20)).close()
    except DiskFullError:
        return 1
    return 0


if __name__ == "__main__":
    print(json.dumps(fill(Path(sys.argv[1]) / "session", int(sys.argv[2]))))
