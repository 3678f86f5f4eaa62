"""Every way in which a driver ends, with each choice of what becomes of the arm: what the servos' torque is then."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys

from vla_rl.bench.on_twin.bench_arm import a_twin
from vla_rl.bench.on_twin.driving import READY
from vla_rl.build_arm import EXITS
from vla_rl.hardware.exits import EXITS as WORDS
from vla_rl.hardware.twin.process import TwinProcess

SCRIPTS = ("end", "exception", "ctrl_c")
NODES = {"node_ctrl_c": signal.SIGINT, "node_sigterm": signal.SIGTERM}
TIMES, PATIENCE_S = 20, 60.0


def run(seconds: float, quick: bool) -> dict[str, float]:
    """Each way twenty times (once), the choices taking turns.

    Returns:
        exits; exits_wrong: whose torque was not as configured; exits_unannounced: that were not told at both ends.
    """
    wrong = unannounced = done = 0
    choices = itertools.cycle(EXITS)
    for way in (*SCRIPTS, *NODES):
        for _ in range(1 if quick else TIMES):
            how = next(choices)
            with a_twin() as twin:
                said = _script(twin, way, how) if way in SCRIPTS else _node(twin, NODES[way], how)
                torque = [servo["torque"] for servo in twin.status()["follower"]["servos"].values()]
            done += 1
            if torque != [how == "hold"] * len(torque):
                wrong += 1
                print(f"vla-rl: {way}, {how}: torque is {torque}\n{said}", file=sys.stderr)
            unannounced += said.count(WORDS[how]) < 2
    return {"exits": done, "exits_wrong": wrong, "exits_unannounced": unannounced}


def _script(twin: TwinProcess, way: str, how: str) -> str:
    """A program of ours that ends; what it said."""
    ending = "wait" if way == "ctrl_c" else way
    command = [sys.executable, "-m", "vla_rl.bench.on_twin.driving", str(twin.port), str(twin.calibration), how, ending]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=_heed_ctrl_c
    )
    assert process.stdout is not None
    said = ""
    while READY not in said:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver did not start: {' '.join(command)}")
        said += line
    if way == "ctrl_c":
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    return said + rest


def _heed_ctrl_c() -> None:
    """A shell's background jobs, this benchmark for one, ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _node(twin: TwinProcess, number: int, how: str) -> str:
    """robot_node, moved a little and told to go; what it said."""
    from vla_rl.ros.measure.robot_alone import RobotAlone

    parameters = {"robot": "lerobot", "port": twin.port, "id": "follower", "calibration": twin.calibration}
    with RobotAlone({**parameters, "at_exit": how, "silence_s": 1.0}) as robot:
        robot.end(number)
        return robot.said
